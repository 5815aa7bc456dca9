"""A split → batches: which examples a process sees, in which order, with which workers."""

from __future__ import annotations

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import Sampler, SequentialSampler

from datamodules.core.collate import Collator
from datamodules.core.dataset import Split
from datamodules.loading.loader import ResumableLoader, pins
from datamodules.loading.samplers import EpochBatches, EpochSampler


def make_loader(
    split: Split,
    *,
    collator: Collator,
    trainer: pl.Trainer | None,
    batch_size: int,
    seed: int,
    is_balanced: bool,
    bucket_batches: int,
    shuffle_window: int,
    num_workers: int,
    prefetch: int,
    pin_memory: bool | None,
) -> ResumableLoader:
    """The loader of one process of a run; the options are those of the data module.

    Args:
        split: the examples.
        collator: makes batches of them.
        trainer: says which process this is, of how many; None = the only one.
        batch_size: examples a batch.
        seed: of the order.
        is_balanced: whether an epoch of training has as many examples of each class.
        bucket_batches: batches of similar lengths are made within windows of this many.
        shuffle_window: examples that are shuffled among each other where they lie in blocks.
        num_workers: loader processes.
        prefetch: batches that each reads ahead.
        pin_memory: copy batches to page-locked memory; None = where the trainer has a GPU.

    Raises:
        ValueError: batches are to be made by length, which nothing has.
    """
    sampler: Sampler = EpochSampler(
        len(split),
        training=split.training,
        seed=seed,
        classes=split.source.targets.numpy() if is_balanced and split.training else None,
        rank=trainer.global_rank if trainer else 0,
        world_size=trainer.world_size if trainer else 1,
        batch_size=batch_size,
        lengths=_lengths(split, bucket_batches),
        bucket_batches=bucket_batches,
        blocks=split.blocks() if shuffle_window else None,
        shuffle_window=shuffle_window,
    )
    if trainer and trainer.overfit_batches:
        sampler = SequentialSampler(split)  # the same few batches, epoch for epoch
    return ResumableLoader(
        split,
        batch_sampler=EpochBatches(sampler, batch_size),
        collate_fn=collator,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        prefetch_factor=prefetch if num_workers > 0 else None,
        pin_memory=pins(pin_memory, trainer),
    )


def _lengths(split: Split, bucket_batches: int) -> np.ndarray | None:
    """Of every example, where batches are made by length."""
    if bucket_batches < 2:
        return None
    lengths = split.lengths()
    if lengths is None:
        raise ValueError(
            f"data.bucket_batches={bucket_batches} sorts examples by length, but none of "
            f"{split.modalities} has lengths that are known before they are read: set it to 0."
        )
    return lengths
