"""The interface of normalisers, axis 4 of attention, and what they share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from perceiver.ops.precision import widen
from perceiver.shapes import Bool, Float


class Normalised(NamedTuple):
    """Weights and what else a normaliser knows of them.

    Args:
        weights: (b, h, q, k), 0 on masked keys.
        lse: (b, h, q) log Σ exp(s) over the kept keys, −∞ for none.
        log_prob: (b, h, q) log-probability of the sampled key, 0 where nothing was sampled.
        entropy: (b, h, q) entropy of the distribution that was sampled from.
    """

    weights: Tensor
    lse: Tensor | None = None
    log_prob: Tensor | None = None
    entropy: Tensor | None = None


class Normaliser(nn.Module):
    """Base of normalisers: scores and the keep mask → weights."""

    @abstractmethod
    def forward(
        self, scores: Float[Tensor, "b h q k"], keep: Bool[Tensor, "#b #h #q #k"] | None = None
    ) -> Normalised: ...

    def check_score(self, name: object, is_positive: bool) -> None:
        """Raises ValueError for a score that this does not normalise.

        Args:
            name: what the caller chose as the score.
            is_positive: whether it is never negative.
        """
        return

    def lse(self, scores: Tensor, keep: Tensor | None) -> Tensor | None:
        """log Σ exp(s) (b, h, q) if these weights are shares of Σ exp(s), else None."""
        return None

    def sink_logit(self) -> float | Tensor | None:
        """The logit of a sink, broadcasting to (b, h, q, 1); None = no sink."""
        return None


class PlainFunction(Normaliser):
    """A function (scores, keep) → weights as a normaliser.

    Args:
        function: returns weights, or `Normalised`.
    """

    name = ""

    def __init__(self, function: Callable[[Tensor, Tensor | None], Tensor | Normalised]) -> None:
        super().__init__()
        self.function = function

    def forward(self, scores: Tensor, keep: Tensor | None = None) -> Normalised:
        answer = self.function(scores, keep)
        return Normalised(answer) if isinstance(answer, Tensor) else answer


def fill_masked(
    scores: Float[Tensor, "*row k"], keep: Bool[Tensor, "..."] | None
) -> tuple[Tensor, Tensor | None]:
    """Scores with −∞ on masked keys, and which rows (…, 1) keep nothing.

    An empty row would be 0/0: its scores are 0 here, and its weights are to be set to zero.
    """
    if keep is None:
        return scores, None
    empty = ~keep.any(-1, keepdim=True)
    return scores.masked_fill(~keep, float("-inf")).masked_fill(empty, 0.0), empty


def clear(weights: Tensor, empty: Tensor | None) -> Tensor:
    """Zero weights, and zero gradients, in empty rows."""
    return weights if empty is None else weights.masked_fill(empty, 0.0)


def logsumexp(
    scores: Float[Tensor, "*row k"], keep: Bool[Tensor, "..."] | None = None
) -> Float[Tensor, "*row"]:
    """log Σ exp(s) over the kept keys, in float32 at least; −∞, gradient 0, for empty rows."""
    filled, empty = fill_masked(widen(scores), keep)
    lse = torch.logsumexp(filled, -1)
    return lse if empty is None else lse.masked_fill(empty[..., 0], float("-inf"))
