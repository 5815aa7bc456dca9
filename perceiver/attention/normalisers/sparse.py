"""Normalisers that give most keys exactly no weight: sparsemax and α-entmax."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from perceiver.attention.normalisers.normaliser import (
    Normalised,
    Normaliser,
    clear,
    fill_masked,
    widen,
)
from perceiver.attention.normalisers.soft import softmax
from perceiver.shapes import Bool, Float

Mask = Bool[Tensor, "#b #h #q #k"]
Scores = Float[Tensor, "b h q k"]


def _sparsemax_threshold(z: Tensor) -> Tensor:
    """τ with Σ max(z − τ, 0) = 1 (Martins & Astudillo 2016, algorithm 1)."""
    ordered = z.sort(-1, descending=True).values
    total = ordered.cumsum(-1)
    rank = torch.arange(1, z.shape[-1] + 1, device=z.device, dtype=z.dtype)
    size = (1 + rank * ordered > total).sum(-1, keepdim=True)
    return (total.gather(-1, size - 1) - 1) / size


def _entmax15_threshold(z: Tensor) -> Tensor:
    """τ with Σ max(z − τ, 0)² = 1 (Peters et al. 2019, algorithm 2)."""
    ordered = z.sort(-1, descending=True).values
    rank = torch.arange(1, z.shape[-1] + 1, device=z.device, dtype=z.dtype)
    mean = ordered.cumsum(-1) / rank
    centred = ordered.square().cumsum(-1) - rank * mean.square()
    threshold = mean - ((1 - centred) / rank).clamp_min(0).sqrt()
    size = (threshold <= ordered).sum(-1, keepdim=True)
    return threshold.gather(-1, size - 1)


def _bisected_threshold(z: Tensor, alpha: float, iterations: int) -> Tensor:
    """τ with Σ max(z − τ, 0)^(1/(α−1)) = 1, by halving [−1, −k^(1−α)] (algorithm 1); max z = 0."""
    low = torch.full_like(z[..., :1], -1.0)
    width = 1.0 - z.shape[-1] ** (1 - alpha)
    for _ in range(iterations):
        width /= 2
        mass = (z - low - width).clamp_min(0).pow(1 / (alpha - 1)).sum(-1, keepdim=True)
        low = torch.where(mass >= 1, low + width, low)
    return low


class _Entmax(torch.autograd.Function):
    """α-entmax of rows (…, k); the backward needs the weights alone (Peters et al. 2019, prop. 2).

    For α > 2 rather than dividing by vanishing weights, r is zero off the support.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, alpha: float, iterations: int) -> Tensor:
        # No key more than 1 below the maximum can be in the support: cutting there changes nothing
        # and turns the −∞ of masked keys into numbers.
        z = ((scores - scores.amax(-1, keepdim=True)) * (alpha - 1)).clamp_min(-2.0)
        if alpha == 2:
            weights = (z - _sparsemax_threshold(z)).clamp_min(0)
        elif alpha == 1.5:
            weights = (z - _entmax15_threshold(z)).clamp_min(0).square()
        else:
            threshold = _bisected_threshold(z, alpha, iterations)
            weights = (z - threshold).clamp_min(0).pow(1 / (alpha - 1))
            weights = weights / weights.sum(-1, keepdim=True)
        ctx.save_for_backward(weights)
        ctx.alpha = alpha
        return weights

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (weights,) = ctx.saved_tensors
        support = weights > 0
        share = torch.where(support, weights.clamp_min(1e-30).pow(2 - ctx.alpha), 0.0)
        share = share.to(weights.dtype)
        mean = (share * grads[0]).sum(-1, keepdim=True) / share.sum(-1, keepdim=True)
        return share * (grads[0] - mean), None, None


def entmax(
    scores: Scores, keep: Mask | None = None, *, alpha: float = 1.5, iterations: int = 60
) -> Scores:
    """w = max((α−1) s − τ, 0)^(1/(α−1)), τ such that Σ w = 1 (Peters et al. 2019, eq. 10).

    α = 1 is softmax, α = 2 sparsemax, both exact; so is 1.5, by sorting. Others are bisected.

    Args:
        scores: computed with in float32 at least.
        keep: True = may be attended to; an empty row gets zeros.
        alpha: 1 or more; the larger, the sparser.
        iterations: halvings of the interval that τ is sought in.
    """
    if alpha < 1:
        raise ValueError(f"entmax with alpha={alpha}: alpha must be 1 (softmax) or more")
    if alpha == 1:
        return softmax(scores, keep)
    wide, empty = fill_masked(widen(scores), keep)
    return clear(_Entmax.apply(wide, float(alpha), iterations), empty).to(scores.dtype)


def sparsemax(scores: Scores, keep: Mask | None = None) -> Scores:
    """The point of the simplex nearest to the scores (Martins & Astudillo 2016, eq. 2)."""
    return entmax(scores, keep, alpha=2.0)


class Sparsemax(Normaliser):
    """See `sparsemax`."""

    def forward(self, scores: Tensor, keep: Tensor | None = None) -> Normalised:
        return Normalised(sparsemax(scores, keep))


class Entmax(Normaliser):
    """See `entmax`.

    Args:
        alpha: 1 or more; 1 is softmax, 2 sparsemax.
        iterations: halvings, for an alpha other than 1, 1.5 and 2.
    """

    def __init__(self, *, alpha: float = 1.5, iterations: int = 60) -> None:
        super().__init__()
        if alpha < 1:
            raise ValueError(f"entmax with alpha={alpha}: alpha must be 1 (softmax) or more")
        self.alpha, self.iterations = alpha, iterations

    def forward(self, scores: Tensor, keep: Tensor | None = None) -> Normalised:
        return Normalised(entmax(scores, keep, alpha=self.alpha, iterations=self.iterations))
