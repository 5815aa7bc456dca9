"""Sequence problems of the memory papers, drawn without end: copy, recall, graphs, retrieval."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import Dataset, Sampler, SequentialSampler

from datamodules.core.dataset import SPLITS
from datamodules.core.facts import DataFacts
from datamodules.core.seeding import generator
from datamodules.loading.loader import ResumableLoader, pins
from datamodules.loading.samplers import EpochBatches, EpochSampler
from perceiver.types import Batch

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]  # inputs, target, scored


class Problems(Dataset[Batch]):
    """Batches of one split over (epoch, index) keys, as `EpochSampler` yields them.

    A batch is drawn from (seed, epoch, index) in training, from (seed, index) in evaluation, so
    that evaluation repeats itself and no two splits draw from the same numbers.
    """

    def __init__(
        self,
        data: AlgorithmicDataModule,
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


class AlgorithmicDataModule(pl.LightningDataModule):
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

    offers: ClassVar[tuple[str, ...]] = ()  # no modalities: the model is shown a sequence
    targets: ClassVar[str] = "a sequence"
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
        """What the splits hold, a line each, for people."""
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


class CopyDataModule(AlgorithmicDataModule):
    """Copy (Graves et al. 2014, section 4.1): `size` random vectors, an end mark, then repeat them.

    Args:
        bits: width of a vector.
        **common: options of `AlgorithmicDataModule`.
    """

    def __init__(self, *, bits: int = 8, **common: Any) -> None:
        self.bits = bits
        super().__init__(**common)

    def widths(self) -> tuple[int, int]:
        return self.bits + 1, self.bits

    def draw(self, size: int, count: int, rng: np.random.Generator) -> Drawn:
        vectors = rng.integers(0, 2, (count, size, self.bits)).astype(np.float32)
        inputs = np.zeros((count, 2 * size + 1, self.bits + 1), np.float32)
        inputs[:, :size, :-1] = vectors
        inputs[:, size, -1] = 1
        target = np.zeros((count, 2 * size + 1, self.bits), np.float32)
        target[:, size + 1 :] = vectors
        return inputs, target, np.arange(2 * size + 1) > size


class AssociativeRecallDataModule(AlgorithmicDataModule):
    """Associative recall (Graves et al. 2014, section 4.3): which item followed this one?

    An item is a few random vectors after a mark. After `size` items one of them, not the last, is
    shown again between two query marks; the answer is the item that came after it.

    Args:
        bits: width of a vector.
        item_length: vectors of an item.
        **common: options of `AlgorithmicDataModule`.
    """

    smallest = 2

    def __init__(self, *, bits: int = 6, item_length: int = 3, **common: Any) -> None:
        self.bits, self.item_length = bits, item_length
        super().__init__(**common)

    def widths(self) -> tuple[int, int]:
        return self.bits + 2, self.bits

    def draw(self, size: int, count: int, rng: np.random.Generator) -> Drawn:
        length, bits = self.item_length, self.bits
        items = rng.integers(0, 2, (count, size, length, bits)).astype(np.float32)
        asked = rng.integers(0, size - 1, count)
        start = size * (length + 1)
        total = start + 2 * length + 2
        inputs = np.zeros((count, total, bits + 2), np.float32)
        shown = inputs[:, :start].reshape(count, size, length + 1, bits + 2)
        shown[:, :, 0, bits] = 1
        shown[:, :, 1:, :bits] = items
        inputs[:, [start, start + length + 1], bits + 1] = 1
        inputs[:, start + 1 : start + length + 1, :bits] = items[np.arange(count), asked]
        target = np.zeros((count, total, bits), np.float32)
        target[:, -length:] = items[np.arange(count), asked + 1]
        return inputs, target, np.arange(total) >= total - length


class GraphTraversalDataModule(AlgorithmicDataModule):
    """Graph traversal (Graves et al. 2016): follow a path through a graph told edge by edge.

    A graph has `size` nodes with labels of their own; from each leads one edge of every relation.
    The edges (from, relation, to) come in random order, one a step. Then a path is asked: a node
    and a relation, and each step another relation; the answer of each step is the node reached.

    Args:
        labels: node labels to draw from.
        relations: kinds of edges.
        hops: length of a path.
        **common: options of `AlgorithmicDataModule`.
    """

    smallest = 2

    def __init__(
        self, *, labels: int = 12, relations: int = 2, hops: int = 3, **common: Any
    ) -> None:
        self.labels, self.relations, self.hops = labels, relations, hops
        super().__init__(**common)

    def widths(self) -> tuple[int, int]:
        return 2 * self.labels + self.relations + 1, self.labels

    def check_size(self, size: int) -> None:
        super().check_size(size)
        if size > self.labels:
            raise ValueError(f"{size} nodes need as many labels: data.labels={self.labels}")

    def draw(self, size: int, count: int, rng: np.random.Generator) -> Drawn:
        edges = size * self.relations
        names = rng.random((count, self.labels)).argsort(axis=1)[:, :size]
        # To any node but the one that the edge leaves.
        step = rng.integers(1, size, (count, size, self.relations))
        leads = (np.arange(size)[:, None] + step) % size
        rows = np.arange(count)
        inputs = np.zeros((count, edges + self.hops, self.widths()[0]), np.float32)
        target = np.zeros((count, edges + self.hops), np.int64)
        order = rng.random((count, edges)).argsort(axis=1)
        for t in range(edges):
            node, relation = np.divmod(order[:, t], self.relations)
            inputs[rows, t, names[rows, node]] = 1
            inputs[rows, t, self.labels + relation] = 1
            to = names[rows, leads[rows, node, relation]]
            inputs[rows, t, self.labels + self.relations + to] = 1
        node = rng.integers(0, size, count)
        inputs[rows, edges, names[rows, node]] = 1
        inputs[:, edges:, -1] = 1
        for t in range(edges, edges + self.hops):
            relation = rng.integers(0, self.relations, count)
            inputs[rows, t, self.labels + relation] = 1
            node = leads[rows, node, relation]
            target[:, t] = names[rows, node]
        return inputs, target, np.arange(edges + self.hops) >= edges


class AssociativeRetrievalDataModule(AlgorithmicDataModule):
    """Associative retrieval (Ba et al. 2016, section 4.1): c9k8j3f1??c → 9.

    `size` different letters, each followed by a digit, two question marks, and one of the letters
    again; the answer is its digit.

    Args:
        letters: letters to draw from.
        digits: digits to draw from, and the classes of the answer.
        **common: options of `AlgorithmicDataModule`.
    """

    def __init__(self, *, letters: int = 26, digits: int = 10, **common: Any) -> None:
        self.letters, self.digits = letters, digits
        super().__init__(**common)

    def widths(self) -> tuple[int, int]:
        return self.letters + self.digits + 1, self.digits

    def check_size(self, size: int) -> None:
        super().check_size(size)
        if size > self.letters:
            raise ValueError(f"{size} pairs need as many letters: data.letters={self.letters}")

    def draw(self, size: int, count: int, rng: np.random.Generator) -> Drawn:
        rows, total = np.arange(count), 2 * size + 3
        keys = rng.random((count, self.letters)).argsort(axis=1)[:, :size]
        values = rng.integers(0, self.digits, (count, size))
        inputs = np.zeros((count, total, self.letters + self.digits + 1), np.float32)
        for pair in range(size):
            inputs[rows, 2 * pair, keys[:, pair]] = 1
            inputs[rows, 2 * pair + 1, self.letters + values[:, pair]] = 1
        inputs[:, -3:-1, -1] = 1
        asked = rng.integers(0, size, count)
        inputs[rows, -1, keys[rows, asked]] = 1
        target = np.zeros((count, total), np.int64)
        target[:, -1] = values[rows, asked]
        return inputs, target, np.arange(total) == total - 1
