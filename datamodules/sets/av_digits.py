"""A digit seen and heard: handwritten scans paired with recordings of the same digit, both real."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.core.cached_columns import cache_in_memory
from datamodules.core.datamodule import MultimodalDataModule
from datamodules.core.dataset import SPLITS, Source
from datamodules.core.labels import encode_labels
from datamodules.core.rows_datamodule import make_sources, without_lost_files
from datamodules.core.splitting import assign_splits
from datamodules.readers import Cell
from datamodules.sets.fsdd import download_fsdd, find_fsdd, list_fsdd
from datamodules.sets.sklearn_digits import (
    DIGIT_NAMES,
    ScanDamage,
    Scans,
    check_scan_options,
    load_scans,
)

_UNHARMED = {"noise": (0.0, 0.0), "patch": (0, 0)}


class PairSource(Source):
    """Each scan of a split with a recording, of the same split, of the same digit.

    Which one is drawn from the generator given to `read`: anew every epoch in training.
    """

    def __init__(self, scans: Scans, recordings: Source, *, damage: ScanDamage) -> None:
        super().__init__(targets=scans.targets, ids=[f"scan {n}" for n in scans.numbers])
        self.scans = scans
        self.recordings = recordings
        self.damage = damage
        spoken = recordings.targets.numpy()
        self.choices = [np.flatnonzero(spoken == digit) for digit in range(len(DIGIT_NAMES))]
        for digit in np.unique(scans.targets):
            if not len(self.choices[digit]):
                raise ValueError(f"No recording of the digit {digit}: complete data.root.")

    def read(self, index: int, rng: np.random.Generator) -> dict[str, Cell]:
        choices = self.choices[self.scans.targets[index]]
        recording = self.recordings.columns["audio"][int(choices[rng.integers(len(choices))])]
        pixels = self.damage(self.scans.pixels[index], rng)
        return {"image": torch.from_numpy(pixels)[None], "audio": recording}


class AVDigitsDataModule(MultimodalDataModule):
    """The scans of `data=digits` with the recordings of `data=fsdd`, each in its own split.

    Args:
        root: where the recordings are, or go.
        download: fetch them if absent; the only time the network is used.
        val_share: part of the scans, and of the training recordings, for validation.
        test_share: part of the scans for the test; recordings have their own test part.
        outside: allow symbolic links that lead out of the root.
        degrade: "image" → options of `ScanDamage`; by default scans stay as they are.
        **common: options of `MultimodalDataModule`, which refuses unknown ones.
    """

    available_modalities = ("image", "audio")

    def __init__(
        self,
        *,
        root: str,
        download: bool = False,
        val_share: float = 0.1,
        test_share: float = 0.2,
        outside: bool = False,
        degrade: Mapping[str, Mapping[str, Any]] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        check_scan_options(self.readers["image"])
        self.root, self.outside = Path(root), outside
        self.download = download
        self.val_share = val_share
        self.test_share = test_share
        if unknown := set(degrade or {}) - {"image"}:
            raise ValueError(f"data.degrade names {sorted(unknown)}, choose from ['image'].")
        self.damage = ScanDamage(**(_UNHARMED | (degrade or {}).get("image", {})))

    def prepare_data(self) -> None:
        if self.download and find_fsdd(self.root) is None:
            download_fsdd(self.root)

    def build(self) -> tuple[list[str], dict[str, Source]]:
        scans = load_scans(
            val_share=self.val_share, test_share=self.test_share, split_seed=self.split_seed
        )
        folder = find_fsdd(self.root)
        if folder is None:
            raise FileNotFoundError(
                f"The Free Spoken Digit Dataset is not in {self.root}; point data.root at it, or "
                f"get it with: python train.py data=av_digits data.root={self.root} "
                "data.download=true"
            )
        rows = list_fsdd(folder, inside=self.root, outside=self.outside)
        rows.columns = without_lost_files(rows.columns, rows.ids, self.bad_examples)
        splits = assign_splits(
            rows, targets=self.targets, shares={"val": self.val_share}, split_seed=self.split_seed
        )
        spoken = make_sources(rows, splits, encode_labels(rows, splits, self.targets)[1])
        audio = {"audio": self.readers["audio"]}
        return DIGIT_NAMES, {
            split: PairSource(
                scans[split],
                cache_in_memory(spoken[split], readers=audio, bad_examples=self.bad_examples),
                damage=self.damage,
            )
            for split in SPLITS
        }
