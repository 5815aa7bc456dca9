"""Spoken English digits: the Free Spoken Digit Dataset (Jakobovski et al., CC BY-SA 4.0)."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datamodules.core.columns import Files
from datamodules.core.rows import Rows
from datamodules.sets.download import PublishedDataModule, download, unpack
from datamodules.sets.sklearn_digits import DIGIT_NAMES

_PROJECT = "https://github.com/Jakobovski/free-spoken-digit-dataset"
_VERSION = "1.0.10"
# What `sha256sum *.wav | sha256sum` says of the recordings of this version.
_CONTENT = "1801eae019c063377d98f831d3f93574f259475df7332bb0e3d1b080fb5e6959"
_FOLDERS = (
    ".",
    "recordings",
    f"free-spoken-digit-dataset-{_VERSION}/recordings",
    "free-spoken-digit-dataset-master/recordings",
)
_NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[^_]+)_(?P<index>\d+)\.wav")
_NUM_TEST_INDICES = 5  # the data set's own split: recordings 0 … 4 of a digit are the test


def download_fsdd(root: Path) -> None:
    """Fetches the recordings (16 MB) of one version from GitHub into `root`.

    Raises:
        OSError: they cannot be fetched, or are not those of this version.
    """
    # GitHub packs the archive when it is asked for, so what is compared is what it holds.
    url = f"{_PROJECT}/archive/refs/tags/v{_VERSION}.zip"
    archive = download(url, root / "fsdd.zip", checksum=None)
    name = f"free-spoken-digit-dataset-{_VERSION}"
    with TemporaryDirectory(dir=root) as folder:
        try:
            unpack(archive, Path(folder))
        finally:
            archive.unlink()
        if content_checksum(Path(folder) / name / "recordings") != _CONTENT:
            raise OSError(
                f"{url} does not hold the recordings of version {_VERSION}, whose checksum is "
                f"sha256:{_CONTENT}: try again."
            )
        (Path(folder) / name).rename(root / name)
    print(
        f"The recordings are those of version {_VERSION} that this project was tested with "
        f"(sha256:{_CONTENT}): their publisher gives no checksum."
    )


def content_checksum(folder: Path) -> str:
    """SHA-256 of the list of recordings and their SHA-256, as `sha256sum` prints it."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.glob("*.wav"))
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


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

    available_modalities = ("audio",)
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
