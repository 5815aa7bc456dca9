"""Normalisers that attend to one key: argmax, Gumbel straight-through, REINFORCE."""

from __future__ import annotations

import torch
from torch import Tensor

from perceiver.attention.normalisers.normaliser import (
    Normalised,
    Normaliser,
    clear,
    fill_masked,
    widen,
)
from perceiver.shapes import Bool, Float

Mask = Bool[Tensor, "#b #h #q #k"]
Scores = Float[Tensor, "b h q k"]


def gumbel_like(scores: Tensor) -> Tensor:
    """−log(−log U), U uniform: s + noise is largest at key j with probability softmax(s)_j."""
    tiny = torch.finfo(scores.dtype).tiny
    return -torch.empty_like(scores).exponential_().clamp_min(tiny).log()


def _one_hot(filled: Tensor, empty: Tensor | None) -> Tensor:
    """1 at the largest score of a row, at the lowest index on ties."""
    best = filled.argmax(-1, keepdim=True)
    # torch.argmax promises no order among ties.
    best = (filled == filled.gather(-1, best)).int().argmax(-1, keepdim=True)
    # F.one_hot would make torch.export take the number of keys for a constant.
    return clear(torch.zeros_like(filled).scatter(-1, best, 1.0), empty)


def argmax(scores: Scores, keep: Mask | None = None) -> Scores:
    """One-hot of the largest kept score, the lowest index on ties. No gradient to the scores."""
    filled, empty = fill_masked(widen(scores.detach()), keep)
    return _one_hot(filled, empty).to(scores.dtype)


def gumbel_st(
    scores: Scores,
    keep: Mask | None = None,
    *,
    temperature: float = 1.0,
    noise: Scores | None = None,
) -> Scores:
    """Forward one-hot(argmax y), backward that of y = softmax((s + noise) / T).

    Jang et al. 2017, "Categorical reparameterization with Gumbel-softmax", eq. 2 and 2.2. So
    dy/ds = (diag(y) − y yᵀ) / T.

    Args:
        scores: unnormalised log-probabilities.
        keep: True = may be sampled.
        temperature: T.
        noise: Gumbel noise to use; None = drawn.
    """
    wide = widen(scores)
    noise = gumbel_like(wide) if noise is None else noise
    filled, empty = fill_masked((wide + noise) / temperature, keep)
    y = clear(filled.softmax(-1), empty)
    # y − y is exactly 0 and carries the gradient of y.
    return (_one_hot(filled.detach(), empty) + (y - y.detach())).to(scores.dtype)


def categorical(
    scores: Float[Tensor, "b h q k"], keep: Bool[Tensor, "#b #h #q #k"] | None = None
) -> tuple[Float[Tensor, "b h q k"], Float[Tensor, "b h q"]]:
    """log α and the entropy H = −Σ α log α of α = softmax(s); both 0 in empty rows.

    log α is −∞ on masked keys. d log α_s/ds_j = 1[j=s] − α_j and dH/ds_j = −α_j (log α_j + H).
    """
    filled, empty = fill_masked(widen(scores), keep)
    log_alpha = filled.log_softmax(-1)
    finite = log_alpha.masked_fill(log_alpha == float("-inf"), 0.0)
    entropy = clear(-(log_alpha.exp() * finite).sum(-1, keepdim=True), empty)[..., 0]
    return clear(log_alpha, empty), entropy


def _of_key(log_alpha: Tensor, one_hot: Tensor) -> Tensor:
    """log α of the key that a one-hot row chose; 0 where it chose none."""
    return torch.where(one_hot > 0, log_alpha, 0.0).sum(-1)


class Argmax(Normaliser):
    """See `argmax`. What every hard normaliser does outside training."""

    def forward(self, scores: Tensor, keep: Tensor | None = None) -> Normalised:
        return Normalised(argmax(scores, keep))


class GumbelST(Normaliser):
    """See `gumbel_st`; argmax outside training.

    The key that it reads is one drawn from softmax(s), whatever the temperature; its
    log-probability and the entropy of that distribution come back too.

    Args:
        temperature: T; small is nearly hard and has gradients of high variance.
    """

    name = "gumbel_st"

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} must be positive")
        self.temperature = temperature

    def forward(self, scores: Tensor, keep: Tensor | None = None) -> Normalised:
        if self.training:
            weights = gumbel_st(scores, keep, temperature=self.temperature)
        else:
            weights = argmax(scores, keep)
        log_alpha, entropy = categorical(scores, keep)
        return Normalised(weights, log_prob=_of_key(log_alpha, weights), entropy=entropy)


class Reinforce(Normaliser):
    """Attend to one key, sampled from α = softmax(s) (Xu et al. 2015, 4.1, eq. 8 and 9).

    The sample has no gradient to the scores: train with `perceiver.attention.reinforce_loss` on the
    log-probabilities and entropies that come back. Outside training: argmax.

    Args:
        soft_probability: probability, per example, of α in place of the sample, to calm the
            gradient; such an example reports the log-probability 0, so it has no REINFORCE term.
    """

    def __init__(self, *, soft_probability: float = 0.5) -> None:
        super().__init__()
        if not 0 <= soft_probability <= 1:
            raise ValueError(f"soft_probability={soft_probability} must lie in [0, 1]")
        self.soft_probability = soft_probability

    def forward(self, scores: Tensor, keep: Tensor | None = None) -> Normalised:
        log_alpha, entropy = categorical(scores, keep)
        if not self.training:
            weights = argmax(scores, keep)
            return Normalised(weights, log_prob=_of_key(log_alpha, weights), entropy=entropy)
        wide = widen(scores.detach())
        weights = argmax(wide + gumbel_like(wide), keep)
        log_prob = _of_key(log_alpha, weights)
        if self.soft_probability > 0:
            soft = torch.rand(scores.shape[0], 1, 1, 1, device=scores.device)
            soft = soft < self.soft_probability
            alpha = log_alpha.exp()
            if keep is not None:
                alpha = alpha.masked_fill(~keep, 0.0)
            weights = torch.where(soft, alpha, weights)
            log_prob = torch.where(soft[..., 0], 0.0, log_prob)
        return Normalised(weights.to(scores.dtype), log_prob=log_prob, entropy=entropy)
