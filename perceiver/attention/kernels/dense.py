"""The dense kernel: the definition that every other kernel equals."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from perceiver.attention.scores import Score


def dense(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d2"],
    value: Float[Tensor, "b h k e"],
    *,
    score: Score,
    normaliser: Callable[..., Tensor],
    keep: Bool[Tensor, "#b #h #q #k"] | None = None,
    dropout: float = 0.0,
) -> tuple[Float[Tensor, "b h q e"], Float[Tensor, "b h q k"]]:
    """Scores, weights and read, each spelled out. Returns (read, weights before dropout)."""
    weights = normaliser(score(query, key), keep)
    return F.dropout(weights, dropout, training=dropout > 0) @ value, weights
