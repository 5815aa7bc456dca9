"""Random numbers that depend on (seed, epoch, index) alone, whichever process draws them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

_64_BITS = 2**64 - 1


def derive_seed(*numbers: int) -> int:
    """One 63-bit seed out of several non-negative integers; neighbours get unrelated seeds.

    SplitMix64 (Steele et al. 2014), a number a step: NumPy's SeedSequence takes ten times as long,
    which counts where every example is seeded.
    """
    state = 0
    for number in numbers:
        state = ((state ^ number) + 0x9E3779B97F4A7C15) & _64_BITS
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _64_BITS
        state ^= state >> 31
    return state >> 1


def generator(*numbers: int) -> np.random.Generator:
    """A NumPy generator seeded by several non-negative integers."""
    return np.random.default_rng(numbers)


def check_range(name: str, bounds: Sequence[float], *, low: float, high: float) -> None:
    """Raises ValueError unless `bounds` is a pair [a, b] with low ≤ a ≤ b ≤ high."""
    try:
        first, last = bounds
        is_range = low <= first <= last <= high
    except (TypeError, ValueError):  # no pair, or not of numbers
        is_range = False
    if not is_range:
        bounds = list(bounds) if isinstance(bounds, tuple) else bounds
        raise ValueError(f"{name}={bounds}, expected [a, b] with {low:g} ≤ a ≤ b ≤ {high:g}.")


@contextmanager
def torch_state_kept() -> Iterator[None]:
    """Afterwards torch's CPU generator is as it was before, however it is seeded inside.

    Library transforms draw from the global generator, which in the main process is also the
    model's (dropout): reading data must not disturb it. Seed `torch.default_generator` itself:
    `torch.manual_seed` would touch every GPU as well.
    """
    state = torch.default_generator.get_state()
    try:
        yield
    finally:
        torch.default_generator.set_state(state)
