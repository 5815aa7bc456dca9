"""Spoken English digits: the Free Spoken Digit Dataset (Jakobovski et al., CC BY-SA 4.0)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from datamodules.columns import Files
from datamodules.download import PublishedDataModule, download, unpack
from datamodules.rows import Rows
from datamodules.scans import DIGIT_NAMES

_ARCHIVE = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/heads/master.zip"
_FOLDERS = (".", "recordings", "free-spoken-digit-dataset-master/recordings")
_NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[^_]+)_(?P<index>\d+)\.wav")
_NUM_TEST_INDICES = 5  # the data set's own split: recordings 0 … 4 of a digit are the test


def download_fsdd(root: Path) -> None:
    """Fetches the recordings (16 MB) from GitHub into `root`."""
    # GitHub packs this archive when it is asked for: no checksum of it is published or lasts.
    archive = download(_ARCHIVE, root / "fsdd.zip", checksum=None)
    unpack(archive, root)
    archive.unlink()


def list_fsdd(folder: Path, *, inside: Path, outside: bool) -> Rows:
    """All recordings, in the data set's own train and test parts.

    Args:
        folder: of `{digit}_{speaker}_{index}.wav`.
        inside: the folder that no recording may leave.
        outside: see `Files`.

    Returns:
        Rows whose validation part, to be held out, is equal for every digit of every speaker.

    Raises:
        ValueError: a file has another name.
    """
    names = sorted(path.name for path in folder.glob("*.wav"))
    matches = [_NAME.fullmatch(file) for file in names]
    if None in matches:
        odd = folder / names[matches.index(None)]
        raise ValueError(f"{odd} is not named digit_speaker_index.wav: rename or remove it.")
    is_test = [int(match["index"]) < _NUM_TEST_INDICES for match in matches]
    return Rows(
        {"audio": Files(names, root=folder, inside=inside, outside=outside)},
        labels=[match["digit"] for match in matches],
        ids=names,
        splits=["test" if test else "train" for test in is_test],
        held_out=("val",),
        strata=[file.rsplit("_", 1)[0] for file in names],
        classes=DIGIT_NAMES,
    )


def find_fsdd(root: Path) -> Path | None:
    """The folder of the recordings at or below a root, if they are there."""
    return next((root / name for name in _FOLDERS if any((root / name).glob("*.wav"))), None)


class FSDDDataModule(PublishedDataModule):
    """3,000 recordings of six speakers, 8 kHz.

    Args:
        val_share: part of the training recordings for validation.
        outside: allow symbolic links that lead out of the root.
        **published: options of `PublishedDataModule`, which refuses unknown ones.
    """

    offers = ("audio",)
    name, title = "fsdd", "The Free Spoken Digit Dataset"

    def __init__(self, *, val_share: float = 0.1, outside: bool = False, **published: Any) -> None:
        super().__init__(**published)
        self.val_share, self.outside = val_share, outside

    def found(self) -> Path | None:
        return find_fsdd(self.root)

    def fetch(self) -> None:
        download_fsdd(self.root)

    def rows(self) -> Rows:
        return list_fsdd(self.folder(), inside=self.root, outside=self.outside)
