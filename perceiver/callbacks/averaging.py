"""How averaged weights follow the trained ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def warmed_ema(*, decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor], None]:
    """An exponential moving average that is young while the run is.

    After n updates the decay is min(`decay`, (1 + n) / (10 + n)), so that a short run's average
    does not linger on its initial weights. For Lightning's WeightAveraging (`multi_avg_fn`).

    Raises:
        ValueError: for a decay outside [0, 1).
    """
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"decay={decay} must be at least 0 and below 1")

    @torch.no_grad()
    def average(averaged: list[Tensor], current: list[Tensor], num_averaged: Tensor) -> None:
        count = float(num_averaged)
        weight = 1.0 - min(decay, (1.0 + count) / (10.0 + count))
        if averaged[0].is_floating_point():  # lists come grouped by type
            torch._foreach_lerp_(averaged, current, weight)
        else:  # counters of a batch norm
            torch._foreach_copy_(averaged, current)

    return average
