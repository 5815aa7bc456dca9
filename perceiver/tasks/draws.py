"""Random numbers of training that depend on (seed, process, batch) alone."""

from __future__ import annotations

import random

import numpy as np
import pytorch_lightning as pl
import torch


def seed_batch(seed: int, trainer: pl.Trainer) -> None:
    """Seed all global generators for the next batch of this process.

    Nothing that is drawn elsewhere, by a validation or while loaders start, then changes what
    training draws, and a run that goes on needs no state but the seed and the batch's number.

    Args:
        seed: of the run.
        trainer: within a fit.
    """
    batch = trainer.fit_loop.epoch_loop.total_batch_idx
    numbers = np.random.SeedSequence([seed, trainer.global_rank, batch])
    drawn, for_numpy = numbers.generate_state(2, np.uint64).tolist()
    random.seed(drawn)
    np.random.seed(for_numpy % 2**32)
    # torch.manual_seed would take as long as a small step where there is no GPU to tell it to.
    torch.default_generator.manual_seed(drawn >> 1)
    device = trainer.strategy.root_device
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(drawn >> 1)
