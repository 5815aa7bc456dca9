"""Base of sequence problems of the memory papers, which are drawn without end."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import ClassVar

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import Dataset, Sampler, SequentialSampler

from datamodules.core.dataset import SPLITS
from datamodules.core.facts import DataFacts
from datamodules.loading.loader import ResumableLoader, pins
from datamodules.loading.samplers import EpochBatches, EpochSampler
from datamodules.loading.seeding import generator
from perceiver.types import Batch, TargetKind

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]  # inputs, target, scored


class Problems(Dataset[Batch]):
    """Batches of one split over (epoch, index) keys, as `EpochSampler` yields them.

    A batch is drawn from (seed, epoch, index) in training, from (seed, index) in evaluation, so
    that evaluation repeats itself and no two splits draw from the same numbers.
    """

    def __init__(
        self,
        data: SequenceDataModule,
        *,
        sizes: Sequence[Sequence[int]],
        seed: int,
        training: bool,
    ) -> None:
        self.data, self.sizes, self.seed, self.training = data, sizes, seed, training

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, key: tuple[int, int] | int) -> Batch:
        # Lightning's overfit_batches puts in a sampler of its own, of plain indices.
        epoch, index = key if isinstance(key, tuple) else (0, key)
        rng = generator(self.seed, epoch if self.training else 0, index)
        low, high = self.sizes[index]
        size = int(rng.integers(low, high + 1))
        inputs, target, scored = self.data.draw(size, self.data.batch_size, rng)
        known = np.broadcast_to(scored, inputs.shape[:2]).copy()
        return Batch(
            inputs={"sequence": torch.from_numpy(inputs.astype(np.float32))},
            targets={"target": torch.from_numpy(target)},
            known={"target": torch.from_numpy(known)},
            part=f"length_{size}" if size in self.data.longer else "",
        )


class SequenceDataModule(pl.LightningDataModule):
    """Base of problems that are drawn: a subclass says how wide they are and draws them.

    All sequences of a batch have one size. Nothing is kept: training draws new problems for ever.

    Args:
        input_dim: width of an input, for the model to read; checked.
        out_dim: bits or classes of an answer, likewise.
        sizes: split → [smallest, largest] size of its problems, drawn anew for each batch.
        longer: sizes that the test tries as well, each reported apart.
        batches: split → batches of an epoch; each of `longer` has as many as the test.
        batch_size: sequences a batch, in each process.
        num_workers: loader processes, in each process.
        pin_memory: copy batches to page-locked memory; None = where the trainer has a GPU.
        seed: of what training draws.
        split_seed: of what validation and test draw.

    Raises:
        ValueError: for sizes, widths or counts that make no problems.
    """

    available_modalities: ClassVar[
        tuple[str, ...]
    ] = ()  # no modalities: the model is shown a sequence
    targets: ClassVar[TargetKind] = TargetKind.SEQUENCE
    smallest: ClassVar[int] = 1

    def __init__(
        self,
        *,
        input_dim: int,
        out_dim: int,
        sizes: Mapping[str, Sequence[int]],
        batches: Mapping[str, int],
        batch_size: int,
        longer: Sequence[int] = (),
        num_workers: int = 0,
        pin_memory: bool | None = None,
        seed: int = 0,
        split_seed: int = 0,
    ) -> None:
        super().__init__()
        self.sizes, self.batches, self.batch_size = dict(sizes), dict(batches), batch_size
        self.longer = list(longer)
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self.seed, self.split_seed = seed, split_seed
        self.class_names: list[str] = []
        self.modalities = ["as trained"]
        for name, given, made in zip(
            ("input_dim", "out_dim"), (input_dim, out_dim), self.widths(), strict=True
        ):
            if given != made:
                raise ValueError(f"data.{name}={given}, but the problems have {made}: set {made}.")
        self._check()

    @abstractmethod
    def widths(self) -> tuple[int, int]:
        """The width of an input, and the bits or classes of an answer."""

    @abstractmethod
    def draw(self, size: int, count: int, rng: np.random.Generator) -> Drawn:
        """`count` problems of a size: inputs (b, t, c), target, and scored (t,) or (b, t) bool.

        The target is (b, t, k) float32 of 0 and 1, or (b, t) int64 classes.
        """

    def check_size(self, size: int) -> None:
        """Raises ValueError for a size that the problem cannot have."""
        if size < self.smallest:
            raise ValueError(f"a size of {size} is below the smallest, {self.smallest}")

    def _check(self) -> None:
        for split in SPLITS:
            bounds = self.sizes.get(split, [])
            if len(bounds) != 2 or bounds[0] > bounds[1]:
                raise ValueError(
                    f"data.sizes.{split}={list(bounds)}, expected [smallest, largest]."
                )
            if self.batches.get(split, 0) < 1:
                raise ValueError(f"data.batches.{split}={self.batches.get(split)}, at least 1.")
        if self.batch_size < 1:
            raise ValueError(f"data.batch_size={self.batch_size}, expected at least 1.")
        for size in self.longer:
            if size <= self.sizes["test"][1]:
                raise ValueError(
                    f"data.longer names {size}, which data.sizes.test={self.sizes['test']} has."
                )
        for size in (*(self.sizes[split][i] for split in SPLITS for i in (0, 1)), *self.longer):
            self.check_size(size)

    def facts(self) -> DataFacts:
        """What the options say: there is nothing to find out."""
        return DataFacts(targets=self.targets)

    def setup(self, stage: str | None = None) -> None:
        """Nothing to read: problems are drawn when they are asked for."""

    def train_dataloader(self) -> ResumableLoader:
        return self._loader("train")

    def val_dataloader(self) -> ResumableLoader:
        return self._loader("val")

    def test_dataloader(self) -> ResumableLoader:
        return self._loader("test")

    def split(self, name: str) -> Problems:
        """The problems of a split."""
        training, count = name == "train", self.batches[name]
        sizes = [self.sizes[name]] * count
        if name == "test":
            sizes += [(size, size) for size in self.longer for _ in range(count)]
        seed = (self.seed if training else self.split_seed) * len(SPLITS) + SPLITS.index(name)
        return Problems(self, sizes=sizes, seed=seed, training=training)

    def summary(self) -> list[str]:
        """What the splits hold, one line each, for people."""
        lines = []
        for split in SPLITS:
            low, high = self.sizes[split]
            line = f"{split:5} {self.batches[split]:,} × {self.batch_size} problems of {low}–{high}"
            longer = "".join(f", {size}" for size in self.longer) if split == "test" else ""
            lines.append(line + longer)
        return lines

    def _loader(self, name: str) -> ResumableLoader:
        problems, trainer = self.split(name), self.trainer
        sampler: Sampler = EpochSampler(
            len(problems),
            training=problems.training,
            seed=self.seed,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )
        if trainer and trainer.overfit_batches:
            sampler = SequentialSampler(problems)  # the same few batches, epoch for epoch
        return ResumableLoader(
            problems,
            batch_sampler=EpochBatches(sampler, 1),
            collate_fn=itemgetter(0),  # an item is a batch already
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=pins(self.pin_memory, trainer),
        )
