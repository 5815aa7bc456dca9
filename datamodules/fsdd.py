"""Spoken English digits: the Free Spoken Digit Dataset (Jakobovski et al., CC BY-SA 4.0)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torchvision.datasets.utils import download_and_extract_archive

from datamodules.columns import Files
from datamodules.rows import Rows, RowsDataModule
from datamodules.scans import DIGIT_NAMES

_ARCHIVE = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/heads/master.zip"
_FOLDERS = (".", "recordings", "free-spoken-digit-dataset-master/recordings")
_NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[^_]+)_(?P<index>\d+)\.wav")
_NUM_TEST_INDICES = 5  # the data set's own split: recordings 0 … 4 of a digit are the test


def download_fsdd(root: Path) -> None:
    """Fetches the recordings (16 MB) from GitHub into `root`, unless they are there."""
    if _find_folder(root) is None:
        print(f"Downloading the Free Spoken Digit Dataset to {root} …")
        download_and_extract_archive(_ARCHIVE, str(root), filename="fsdd.zip", remove_finished=True)


def list_fsdd(root: Path, *, name: str = "fsdd") -> Rows:
    """All recordings, in the data set's own train and test parts.

    Args:
        root: folder of `{digit}_{speaker}_{index}.wav`, or of a folder `recordings` of them.
        name: of the config, for the message.

    Returns:
        Rows whose validation part, to be held out, is equal for every digit of every speaker.

    Raises:
        FileNotFoundError: there are no recordings.
        ValueError: a file has another name.
    """
    folder = _find_folder(root)
    if folder is None:
        raise FileNotFoundError(
            f"No recordings in {root}: point data.root at them, or fetch them with "
            f"python train.py data={name} data.root={root} data.download=true"
        )
    names = sorted(path.name for path in folder.glob("*.wav"))
    matches = [_NAME.fullmatch(file) for file in names]
    if None in matches:
        odd = folder / names[matches.index(None)]
        raise ValueError(f"{odd} is not named digit_speaker_index.wav: rename or remove it.")
    is_test = [int(match["index"]) < _NUM_TEST_INDICES for match in matches]
    return Rows(
        {"audio": Files(names, root=folder, outside=True)},
        labels=[match["digit"] for match in matches],
        ids=names,
        splits=["test" if test else "train" for test in is_test],
        held_out=("val",),
        strata=[file.rsplit("_", 1)[0] for file in names],
        classes=DIGIT_NAMES,
    )


def _find_folder(root: Path) -> Path | None:
    return next((root / name for name in _FOLDERS if any((root / name).glob("*.wav"))), None)


class FSDDDataModule(RowsDataModule):
    """3,000 recordings of six speakers, 8 kHz.

    Args:
        root: where the recordings are, or go.
        download: fetch them if absent; the only time the network is used.
        val_share: part of the training recordings for validation.
        **common: options of `RowsDataModule`, which refuses unknown ones.
    """

    offers = ("audio",)

    def __init__(
        self, *, root: str, download: bool = False, val_share: float = 0.1, **common: Any
    ) -> None:
        super().__init__(**common)
        self.root = Path(root)
        self.download = download
        self.val_share = val_share

    def prepare_data(self) -> None:
        if self.download:
            download_fsdd(self.root)

    def rows(self) -> Rows:
        return list_fsdd(self.root)
