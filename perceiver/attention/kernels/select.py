"""Which kernel serves an attention: by capability first, then by size and device."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from perceiver.attention import normalisers
from perceiver.attention.scores import Dot, Score

KERNELS = ("auto", "dense", "sdpa")


def _sdpa_obstacle(score: Score, normaliser: Callable[..., Tensor], need_weights: bool) -> str:
    """Why SDPA cannot serve this attention, naming the axis; empty if it can."""
    if need_weights:
        return "weights: it never forms them (need_weights=True)"
    if not isinstance(score, Dot):
        return f"score: {type(score).__name__} is not a dot product"
    if normaliser is not normalisers.softmax:
        return f"normaliser: {getattr(normaliser, '__name__', normaliser)} is not softmax"
    return ""


def select_kernel(
    kernel: str,
    *,
    score: Score,
    normaliser: Callable[..., Tensor],
    need_weights: bool,
    dropout: float,
) -> str:
    """The kernel to run: the one asked for, or for "auto" SDPA wherever it is exact and fast.

    Raises:
        ValueError: if the kernel that is asked for cannot compute this attention.
    """
    obstacle = _sdpa_obstacle(score, normaliser, need_weights)
    if kernel == "sdpa" and obstacle:
        raise ValueError(f"kernel=sdpa refuses this attention; {obstacle}; use kernel=auto")
    if kernel != "auto":
        return kernel
    # Attention dropout sends SDPA to a path several times slower than the dense kernel.
    return "dense" if obstacle or dropout > 0 else "sdpa"
