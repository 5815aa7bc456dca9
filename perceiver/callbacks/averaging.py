"""How averaged weights follow the trained ones."""

from __future__ import annotations

from collections.abc import Callable

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor


class WarmedAverage(WeightAveraging):
    """An exponential moving average of weights and statistics that is young while the run is.

    Validated, saved and tested in place of the trained weights, as Lightning's WeightAveraging
    does; see `warmed_ema` for the average. It is kept on the device of the training, in the
    precision in which the model was made: half-precision weights have a full-precision average.

    Args:
        decay: what is kept of the average at each optimizer step, late in the run; in [0, 1).

    Raises:
        ValueError: for another decay.
    """

    def __init__(self, *, decay: float) -> None:
        super().__init__(use_buffers=True, multi_avg_fn=warmed_ema(decay=decay))

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # Lightning moves the model only after this: its average would be left on the CPU, and every
        # step would copy all weights there.
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)


def warmed_ema(*, decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor], None]:
    """The update of an average, for torch's AveragedModel (`multi_avg_fn`).

    After n updates the decay is min(`decay`, (1 + n) / (10 + n)), so that a short run's average
    does not linger on its initial weights.

    Raises:
        ValueError: for a decay outside [0, 1).
    """
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"decay={decay} must be at least 0 and below 1")

    @torch.no_grad()
    def average(averaged: list[Tensor], current: list[Tensor], num_averaged: Tensor) -> None:
        first = averaged[0]  # lists come grouped by the average's device and type
        if not first.is_floating_point():  # counters of a batch norm
            torch._foreach_copy_(averaged, current)
            return
        count = num_averaged.double()
        weight = 1.0 - ((1.0 + count) / (10.0 + count)).clamp(max=decay)
        share = weight.item() if weight.is_cpu else weight.to(first.dtype)
        move_towards(averaged, [new.to(first.dtype) for new in current], share)

    return average


def move_towards(averaged: list[Tensor], current: list[Tensor], share: float | Tensor) -> None:
    """Let the average go this share of the way; a tensor's value is not waited for."""
    if not isinstance(share, Tensor):
        torch._foreach_lerp_(averaged, current, share)
        return
    step = torch._foreach_sub(current, averaged)
    torch._foreach_mul_(step, share)
    torch._foreach_add_(averaged, step)
