"""Spoken English digits: the Free Spoken Digit Dataset (Jakobovski et al., CC BY-SA 4.0)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torchvision.datasets.utils import download_and_extract_archive

from datamodules.base import MultimodalDataModule
from datamodules.randomness import generator
from datamodules.readers.audio import AudioOptions, read_audio
from datamodules.scans import DIGIT_NAMES
from datamodules.splits import Source, hold_out

_ARCHIVE = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/heads/master.zip"
_FOLDERS = (".", "recordings", "free-spoken-digit-dataset-master/recordings")
_NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[^_]+)_(?P<index>\d+)\.wav")
_NUM_TEST_INDICES = (
    5  # the data set's own split: recordings 0 … 4 of a speaker's digit are the test
)


@dataclass(frozen=True)
class Recordings:
    """Spoken digits of one split, decoded.

    Args:
        waveforms: n tensors (samples,) in [-1, 1].
        targets: n digits.
        ids: n file names.
    """

    waveforms: list[Tensor]
    targets: list[int]
    ids: list[str]

    def select(self, chosen: np.ndarray) -> Recordings:
        """Those where the (n,) bool array `chosen` is True."""
        indices = np.flatnonzero(chosen)
        return Recordings(
            [self.waveforms[i] for i in indices],
            [self.targets[i] for i in indices],
            [self.ids[i] for i in indices],
        )


def download_fsdd(root: Path) -> None:
    """Fetches the recordings (16 MB) from GitHub into `root`, unless they are there."""
    if _find_folder(root) is None:
        print(f"Downloading the Free Spoken Digit Dataset to {root} …")
        download_and_extract_archive(_ARCHIVE, str(root), filename="fsdd.zip", remove_finished=True)


def load_fsdd(
    root: Path, *, options: AudioOptions, val_share: float, split_seed: int, name: str = "fsdd"
) -> dict[str, Recordings]:
    """All recordings, decoded into memory, in the data set's own train and test parts.

    Args:
        root: folder of `{digit}_{speaker}_{index}.wav`, or of a folder `recordings` of them.
        options: of the waveforms.
        val_share: part of train for validation, equal for every digit of every speaker.
        split_seed: of that choice.
        name: of the config, for the message.

    Raises:
        FileNotFoundError: there are no recordings.
        ValueError: a file is broken or has another name.
    """
    folder = _find_folder(root)
    if folder is None:
        raise FileNotFoundError(
            f"No recordings in {root}: point data.root at them, or fetch them with "
            f"python train.py data={name} data.root={root} data.download=true"
        )
    paths = sorted(folder.glob("*.wav"))
    matches = [_NAME.fullmatch(path.name) for path in paths]
    if None in matches:
        odd = paths[matches.index(None)]
        raise ValueError(f"{odd} is not named digit_speaker_index.wav: rename or remove it.")
    everything = Recordings(
        [read_audio(path, options) for path in paths],
        [int(match["digit"]) for match in matches],
        [path.name for path in paths],
    )
    is_test = np.array([int(match["index"]) < _NUM_TEST_INDICES for match in matches])
    train, test = everything.select(~is_test), everything.select(is_test)
    voices = [file_name.rsplit("_", 1)[0] for file_name in train.ids]
    is_val = hold_out(voices, val_share, rng=generator(split_seed))
    return {"train": train.select(~is_val), "val": train.select(is_val), "test": test}


def _find_folder(root: Path) -> Path | None:
    return next((root / name for name in _FOLDERS if any((root / name).glob("*.wav"))), None)


class RecordingSource(Source):
    """Recordings of one split."""

    def __init__(self, recordings: Recordings) -> None:
        super().__init__(targets=recordings.targets, ids=recordings.ids)
        self.waveforms = recordings.waveforms

    def read(self, index: int, rng: np.random.Generator) -> dict[str, Tensor | None]:
        return {"audio": self.waveforms[index]}


class FSDDDataModule(MultimodalDataModule):
    """3,000 recordings of six speakers, 8 kHz.

    Args:
        root: where the recordings are, or go.
        download: fetch them if absent; the only time the network is used.
        val_share: part of the training recordings for validation.
        **common: options of `MultimodalDataModule`, which refuses unknown ones.
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

    def build(self) -> tuple[list[str], dict[str, Source]]:
        parts = load_fsdd(
            self.root, options=self.audio, val_share=self.val_share, split_seed=self.split_seed
        )
        return DIGIT_NAMES, {name: RecordingSource(part) for name, part in parts.items()}
