"""Score functions, axis 1 of attention: how well a key matches a query."""

from __future__ import annotations

import math
from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class Score(nn.Module):
    """Base of all scores: (q, k) → s (b, h, q, k)."""

    @abstractmethod
    def forward(
        self, query: Float[Tensor, "b h q d"], key: Float[Tensor, "b h k d2"]
    ) -> Float[Tensor, "b h q k"]: ...

    def fold(
        self, query: Float[Tensor, "b h q d"], key: Float[Tensor, "b h k d2"]
    ) -> tuple[Tensor, Tensor, float] | None:
        """(q', k', scale) with s = scale · q'·k' if the score is a dot product in disguise.

        Fused kernels apply exactly to the scores that fold; None means that this one does not.
        """
        return None


class Dot(Score):
    """s = scale · q·k; scale None is 1/√d (Vaswani et al. 2017, eq. 1), 1.0 the plain product."""

    def __init__(self, *, scale: float | None = None) -> None:
        super().__init__()
        self.scale = scale

    def fold(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor, float]:
        scale = 1 / math.sqrt(query.shape[-1]) if self.scale is None else self.scale
        return query, key, scale

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        query, key, scale = self.fold(query, key)
        # The scale goes on the queries before the product: half-precision scores must not overflow.
        return (query * scale) @ key.transpose(-1, -2)
