"""Learning-rate schedules over a whole run, as factors of the optimiser's rate.

Each takes the optimiser and the run's number of steps, and is stepped once per step. `warmup` is a
share of the run, in which the rate rises linearly; other shares are of what follows the warm-up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def _warmed(
    optimizer: Optimizer, total_steps: int, warmup: float, factor: Callable[[float], float]
) -> LambdaLR:
    """Linear warm-up, then factor(progress), progress from 0 to 1 over the rest of the run."""
    if not 0.0 <= warmup < 1.0:
        raise ValueError(f"warmup={warmup} is a share of the run, at least 0 and below 1")
    warmup_steps = round(warmup * total_steps)

    def scale(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        return factor(min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps)))

    return LambdaLR(optimizer, scale)


def constant(optimizer: Optimizer, total_steps: int, *, warmup: float = 0.0) -> LambdaLR:
    """The full rate throughout, after an optional warm-up."""
    return _warmed(optimizer, total_steps, warmup, lambda progress: 1.0)


def cosine(
    optimizer: Optimizer, total_steps: int, *, warmup: float = 0.0, final: float = 0.0
) -> LambdaLR:
    """Half a cosine from 1 to `final`, after an optional warm-up (Loshchilov & Hutter 2017)."""
    return flat_cosine(optimizer, total_steps, warmup=warmup, flat=0.0, final=final)


def flat_cosine(
    optimizer: Optimizer,
    total_steps: int,
    *,
    flat: float = 0.5,
    warmup: float = 0.0,
    final: float = 0.0,
) -> LambdaLR:
    """The full rate for a share `flat` of the run, then half a cosine to `final`.

    Perceiver IO on ImageNet (Jaegle et al. 2022, appendix H): flat for half the run, no warm-up.
    """
    if not 0.0 <= flat < 1.0:
        raise ValueError(f"flat={flat} is a share of the run, at least 0 and below 1")

    def factor(progress: float) -> float:
        falling = max(0.0, (progress - flat) / (1.0 - flat))
        return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * falling))

    return _warmed(optimizer, total_steps, warmup, factor)


def step(
    optimizer: Optimizer,
    total_steps: int,
    *,
    milestones: Sequence[float],
    gamma: float = 0.1,
    warmup: float = 0.0,
) -> LambdaLR:
    """The rate times `gamma` at each milestone, a share of the run.

    Perceiver on ImageNet (Jaegle et al. 2021, appendix A): ÷10 at epochs 84, 102 and 114 of 120,
    milestones 0.7, 0.85 and 0.95.

    Raises:
        ValueError: for a milestone that is no share, an epoch say.
    """
    if not all(0.0 < milestone < 1.0 for milestone in milestones):
        raise ValueError(
            f"milestones={list(milestones)} are shares of the run, above 0 and below 1: "
            "epoch 84 of 120 is 0.7"
        )
    return _warmed(
        optimizer,
        total_steps,
        warmup,
        lambda progress: gamma ** sum(progress >= milestone for milestone in milestones),
    )
