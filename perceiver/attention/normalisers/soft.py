"""Normalisers that spread weight over all kept keys: softmax, sigmoid, relu, top-k, sum, none."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceiver.attention.normalisers.normaliser import (
    Normalised,
    Normaliser,
    clear,
    fill_masked,
    logsumexp,
    widen,
)
from perceiver.shapes import Bool, Float

Mask = Bool[Tensor, "#b #h #q #k"]
Scores = Float[Tensor, "b h q k"]


def softmax(
    scores: Scores, keep: Mask | None = None, *, sink: float | Tensor | None = None
) -> Scores:
    """w = exp(s) / (Σ exp(s) [+ exp(sink)]) over the kept keys; an empty row gets zeros.

    Args:
        scores: computed with in float32 at least.
        keep: True = may be attended to.
        sink: a logit without a value that takes its share of the weight: 0 is "softmax off by
            one", a tensor broadcasting to (b, h, q, 1) is learned (Agarwal et al. 2025, gpt-oss).
    """
    # torch's own softmax computes with float32 inside whatever comes in, and rounds once.
    filled, empty = fill_masked(scores if sink is None else widen(scores), keep)
    weights = clear(filled.softmax(-1), empty)
    if sink is not None:
        # Σ exp(s) / (Σ exp(s) + exp(sink)), from the log-sum-exp that every kernel can give.
        lse = filled.logsumexp(-1, keepdim=True)
        weights = weights * torch.sigmoid(lse - sink)
    return weights.to(scores.dtype)


def sigmoid(scores: Scores, keep: Mask | None = None, *, bias: float | None = None) -> Scores:
    """w = σ(s + b), each key for itself; b None is −log of the row's length.

    Ramapuram et al. 2024, "Theory, analysis, and best practices for sigmoid self-attention", 2.
    """
    wide = widen(scores)
    # A tensor: torch.export would take the logarithm of a length for a constant.
    length = torch.full((), scores.shape[-1], dtype=wide.dtype, device=wide.device)
    weights = torch.sigmoid(wide - length.log() if bias is None else wide + bias)
    return (weights if keep is None else weights.masked_fill(~keep, 0.0)).to(scores.dtype)


def relu(scores: Scores, keep: Mask | None = None) -> Scores:
    """w = max(s, 0) / row length (Wortsman et al. 2023, "Replacing softmax with ReLU", 2)."""
    weights = widen(scores).relu() / max(scores.shape[-1], 1)
    return (weights if keep is None else weights.masked_fill(~keep, 0.0)).to(scores.dtype)


def topk(scores: Scores, keep: Mask | None = None, *, k: int = 8) -> Scores:
    """Softmax over the k largest kept scores (Gupta et al. 2021); ties with the k-th are kept."""
    if k < 1:
        raise ValueError(f"topk keeps k={k} keys: k must be 1 or more")
    with torch.no_grad():
        filled = scores if keep is None else scores.masked_fill(~keep, float("-inf"))
        # k more keys that are not there: of fewer than k all are kept, and torch.export need not
        # know how many there are.
        kth = F.pad(filled, (0, k), value=float("-inf")).topk(k, -1).values[..., -1:]
        large = filled >= kth
    return softmax(scores, large if keep is None else large & keep)


def sum_to_one(scores: Scores, keep: Mask | None = None) -> Scores:
    """w = s / Σ s over the kept keys, for scores that are not negative (linear attention)."""
    wide = widen(scores)
    wide = wide if keep is None else wide.masked_fill(~keep, 0.0)
    total = wide.sum(-1, keepdim=True)
    # A row of zeros has nothing to share out: its weights stay 0.
    return (wide / total.masked_fill(total == 0, 1.0)).to(scores.dtype)


class Softmax(Normaliser):
    """See `softmax`.

    Args:
        sink: None; a number, 0 for "off by one"; or "learned", one logit per head, 0 at first.
        num_heads: heads that learn a sink.
    """

    def __init__(self, *, sink: float | str | None = None, num_heads: int = 1) -> None:
        super().__init__()
        if isinstance(sink, str) and sink != "learned":
            raise ValueError(f"sink={sink!r} must be null, a number or 'learned'")
        self.sink: float | Tensor | None
        self.sink = nn.Parameter(torch.zeros(num_heads)) if isinstance(sink, str) else sink

    def sink_logit(self) -> float | Tensor | None:
        return self.sink[:, None, None] if isinstance(self.sink, Tensor) else self.sink

    def lse(self, scores: Tensor, keep: Tensor | None) -> Tensor:
        return logsumexp(scores, keep)

    def forward(self, scores: Tensor, keep: Tensor | None = None) -> Normalised:
        return Normalised(softmax(scores, keep, sink=self.sink_logit()))


class Sigmoid(Normaliser):
    """See `sigmoid`.

    Args:
        bias: added to the scores; None = −log of the row's length.
    """

    def __init__(self, *, bias: float | None = None) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, scores: Tensor, keep: Tensor | None = None) -> Normalised:
        return Normalised(sigmoid(scores, keep, bias=self.bias))


class Relu(Normaliser):
    """See `relu`."""

    def forward(self, scores: Tensor, keep: Tensor | None = None) -> Normalised:
        return Normalised(relu(scores, keep))


class TopK(Normaliser):
    """See `topk`.

    Args:
        k: keys that a query attends to.
    """

    name = "topk"

    def __init__(self, *, k: int = 8) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"topk keeps k={k} keys: k must be 1 or more")
        self.k = k

    def forward(self, scores: Tensor, keep: Tensor | None = None) -> Normalised:
        return Normalised(topk(scores, keep, k=self.k))


class Sum(Normaliser):
    """See `sum_to_one`."""

    def check_score(self, name: object, is_positive: bool) -> None:
        if not is_positive:
            raise ValueError(
                "normaliser=sum shares weights out in proportion to the scores, which must not be "
                f"negative as those of score={name} can be: use score=feature_dot"
            )

    def forward(self, scores: Tensor, keep: Tensor | None = None) -> Normalised:
        return Normalised(sum_to_one(scores, keep))


class Unnormalised(Normaliser):
    """w = s, 0 on masked keys: the sum rule of fast weights (Schlag et al. 2021, 3)."""

    name = "none"

    def forward(self, scores: Tensor, keep: Tensor | None = None) -> Normalised:
        return Normalised(scores if keep is None else scores.masked_fill(~keep, 0.0))
