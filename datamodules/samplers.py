"""Which examples of a split a process sees, in which order, in which epoch."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import Sampler

from datamodules.randomness import generator


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index) pairs: one process's share of a split.

    The epoch travels with the index, so that a dataset draws its training randomness from
    (seed, epoch, index) alone: the same in any worker, with any number of them, after a resume.

    Training shuffles by (seed, epoch) and repeats a few examples so that every process has equally
    many (a process that ran out would leave the others waiting for its gradients). Evaluation
    strides through the split unpadded, so that no example is counted twice.

    Args:
        num_examples: examples in the split.
        training: shuffled and padded; False = in order and exact.
        seed: of the shuffle.
        rank: this process, from 0.
        world_size: number of processes.

    Raises:
        ValueError: the split is empty, or an evaluation split has fewer examples than processes.
    """

    def __init__(
        self,
        num_examples: int,
        *,
        training: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
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
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.training:
            return -(-self.num_examples // self.world_size)
        return len(range(self.rank, self.num_examples, self.world_size))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        if self.training:
            # seed + epoch would make epoch 1 of seed 0 the same as epoch 0 of seed 1.
            order = generator(self.seed, epoch).permutation(self.num_examples).tolist()
            wanted = len(self) * self.world_size
            order = (order * -(-wanted // self.num_examples))[:wanted]
        else:
            order = range(self.num_examples)
        return iter([(epoch, index) for index in order[self.rank :: self.world_size]])
