"""How averaged weights follow the trained ones."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def warmed_ema(*, decay: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """An exponential moving average that is young while the run is.

    After n updates the decay is min(`decay`, (1 + n) / (10 + n)), so that a short run's average does
    not linger on its initial weights. For Lightning's WeightAveraging (`avg_fn`).

    Raises:
        ValueError: for a decay outside [0, 1).
    """
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"decay={decay} must be at least 0 and below 1")

    def average(averaged: Tensor, current: Tensor, num_averaged: Tensor) -> Tensor:
        count = float(num_averaged)
        weight = 1.0 - min(decay, (1.0 + count) / (10.0 + count))
        return averaged.lerp(current, weight)

    return average
