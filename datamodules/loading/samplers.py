"""Which examples of a split a process sees, in which order, in which epoch, in which batches."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
from torch.utils.data import BatchSampler, Sampler

from datamodules.loading.seeding import generator

_REPEAT = 2**32  # more than there are epochs


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index) pairs: one process's share of a split.

    The epoch travels with the index, so that a dataset draws its training randomness from
    (seed, epoch, index) alone: the same in any worker, with any number of them, after a resume.

    Training shuffles by (seed, epoch), evaluation goes in order; either gives every example to
    exactly one process. Only a training split of fewer examples than processes repeats some, so
    that no process is without.

    With lengths and `bucket_batches`, the order is cut into windows of that many batches (of all
    processes together) and each window is sorted by length: batches then hold examples of similar
    lengths, on all processes at once, and need little padding. Training shuffles the batches again.

    With classes, an epoch of training has as many examples of each class, and as many in all as the
    split: of a large class some, of a rare one each several times. What is drawn of an example then
    differs each time.

    With blocks (shards, say), training shuffles the blocks, gives each process a run of them, and
    shuffles examples within windows: at any time a process reads from few blocks.

    Args:
        num_examples: examples in the split.
        training: shuffled; False = in order.
        seed: of the shuffle.
        classes: (num_examples,) the class of each, to take as many of each; None = take each once.
        rank: this process, from 0.
        world_size: number of processes.
        batch_size: examples per batch, in each process.
        lengths: (num_examples,) how long each example is, in any unit; None = not known.
        bucket_batches: batches a window; 0 or 1 = lengths change nothing.
        blocks: (num_examples,) numbers, equal for examples that lie together; None = shuffle all.
        shuffle_window: examples a window of blocks.

    Raises:
        ValueError: the split is empty, or an evaluation split has fewer examples than processes.
    """

    def __init__(
        self,
        num_examples: int,
        *,
        training: bool,
        seed: int = 0,
        classes: np.ndarray | None = None,
        rank: int = 0,
        world_size: int = 1,
        batch_size: int = 1,
        lengths: np.ndarray | None = None,
        bucket_batches: int = 0,
        blocks: np.ndarray | None = None,
        shuffle_window: int = 1,
    ) -> None:
        if num_examples < 1:
            raise ValueError("A sampler needs at least one example, the split is empty.")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank={rank} lies outside [0, world_size={world_size}).")
        if not training and num_examples < world_size:
            raise ValueError(
                f"An evaluation split of {num_examples} examples cannot be shared by {world_size} "
                "processes (one without a batch would hang the rest): use fewer trainer.devices."
            )
        self.num_examples = num_examples
        self.training = training
        self.seed = seed
        self.classes = classes
        self.rank = rank
        self.world_size = world_size
        self.batch_size = batch_size
        self.lengths = lengths if bucket_batches > 1 else None
        self.bucket_batches = bucket_batches
        self.blocks = blocks
        self.shuffle_window = shuffle_window
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(range(self.rank, max(self.num_examples, self.world_size), self.world_size))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        # Neighbours in the order go to different processes.
        order = self._order(epoch)
        if self.classes is None:
            return ((epoch, index) for index in order[self.rank :: self.world_size].tolist())
        # The second time that an example comes is drawn as if it were of another epoch.
        pairs = zip((epoch + _REPEAT * _earlier(order)).tolist(), order.tolist(), strict=True)
        return islice(pairs, self.rank, None, self.world_size)

    def _order(self, epoch: int) -> np.ndarray:
        order = np.arange(self.num_examples)
        # seed + epoch would make epoch 1 of seed 0 the same as epoch 0 of seed 1.
        rng = generator(self.seed, epoch)
        if self.training and self.classes is not None:
            order = self._balanced(rng)
        elif self.training and self.blocks is None:
            order = rng.permutation(order)
        elif self.training:
            order = self._shuffle_blocks(rng)
        if self.lengths is not None:
            order = self._bucket(order, rng)
        return np.resize(order, max(self.num_examples, self.world_size))

    def _balanced(self, rng: np.random.Generator) -> np.ndarray:
        """As many of each class: all its examples in random order, again and again."""
        names = rng.permutation(np.unique(self.classes))  # the first have the one that is left over
        shares = np.diff(np.linspace(0, self.num_examples, len(names) + 1).round().astype(int))
        found = []
        for name, share in zip(names, shares, strict=True):
            members = np.flatnonzero(self.classes == name)
            rounds = [rng.permutation(members) for _ in range(share // len(members) + 1)]
            found.append(np.concatenate(rounds)[:share])
        return rng.permutation(np.concatenate(found))

    def _shuffle_blocks(self, rng: np.random.Generator) -> np.ndarray:
        names, block = np.unique(self.blocks, return_inverse=True)
        places = rng.permutation(len(names))[block].argsort(kind="stable")
        order = np.empty_like(places)
        for rank, run in enumerate(np.array_split(places, self.world_size)):
            windows = np.split(run, range(self.shuffle_window, len(run), self.shuffle_window))
            order[rank :: self.world_size] = np.concatenate([rng.permutation(w) for w in windows])
        return order

    def _bucket(self, order: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        batch = self.batch_size * self.world_size
        # The rest that fills no batch is left as it was drawn: sorted, it would always hold the
        # longest examples of the last window.
        full = len(order) // batch * batch
        window = batch * self.bucket_batches
        windows = np.split(order[:full], range(window, full, window))
        lengths = self.lengths
        windows = [part[lengths[part].argsort(kind="stable")] for part in windows]
        batches = np.concatenate(windows).reshape(-1, batch) if full else order[:0]
        if self.training:
            batches = rng.permutation(batches)
        return np.concatenate([batches.reshape(-1), order[full:]])


def _earlier(order: np.ndarray) -> np.ndarray:
    """(n,) how many times each index of (n,) came before."""
    places = order.argsort(kind="stable")
    found = np.empty_like(order)
    found[places] = np.arange(len(order)) - np.searchsorted(order[places], order[places])
    return found


class EpochBatches(BatchSampler):
    """Batches of a process's share, equally many on every process in training.

    Where the last examples are fewer than the processes, some processes would have a batch of one
    that others lack, who would wait for their gradients in vain: there, that example joins the
    batch before. In evaluation, which waits for nobody, it stays a batch of its own.

    Args:
        sampler: an `EpochSampler`, or any sampler (Lightning's overfit_batches puts in its own).
        batch_size: examples a batch.
        drop_last: must be False; the name is torch's.

    Attributes:
        start: batches to leave out at the beginning of the next epoch alone: those that a resumed
            run has trained on already.
    """

    def __init__(self, sampler: Sampler, batch_size: int, drop_last: bool = False) -> None:
        super().__init__(sampler, batch_size, drop_last=False)
        self.start = 0

    def _merges_last(self) -> bool:
        sampler = self.sampler
        if not isinstance(sampler, EpochSampler) or not sampler.training:
            return False
        full, rest = divmod(sampler.num_examples, self.batch_size * sampler.world_size)
        return full > 0 and 0 < rest < sampler.world_size

    def __len__(self) -> int:
        if self._merges_last():
            return self.sampler.num_examples // (self.batch_size * self.sampler.world_size)
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        start, self.start = self.start, 0
        keys, last = islice(self.sampler, start * self.batch_size, None), len(self) - 1
        for number in range(start, last + 1):
            yield list(islice(keys, None if number == last else self.batch_size))
