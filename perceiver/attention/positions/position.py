"""The interface of position schemes, axis 2 of attention: where queries and keys stand."""

from __future__ import annotations

from torch import Tensor, nn

from perceiver.attention.patterns import PatternMaker
from perceiver.shapes import Float, Int


class Position(nn.Module):
    """Base of position schemes; this one knows nothing of positions.

    A scheme may rotate queries and keys, add a bias to the scores, or add a term to what is read.
    Positions are whole numbers: key j stands at j, query i of q at p_i = i + (k − q), so that the
    last query stands at the last key.

    `has_bias`, `has_read`: `bias`, `read` return something. `compares_widths`: the scheme needs
    queries and keys of the same width. `knows_padding`: the keys that a pattern pads a picture with
    have positions too.
    """

    has_bias = False
    has_read = False
    compares_widths = False
    knows_padding = False

    def check(self, num_queries: int, num_keys: int) -> None:
        """Raises ValueError for so many queries and keys as the scheme has no positions for."""
        return

    def check_pattern(self, pattern: PatternMaker) -> None:
        """Raises ValueError for a pattern that the scheme does not go with."""
        return

    def rotate(
        self,
        query: Float[Tensor, "b h q d"],
        key: Float[Tensor, "b g k d2"],
        query_positions: Int[Tensor, " q"],
        key_positions: Int[Tensor, " k"],
    ) -> tuple[Tensor, Tensor]:
        """Queries and keys that know their positions."""
        return query, key

    def bias(
        self,
        query: Float[Tensor, "b h q d"],
        query_positions: Int[Tensor, " q"],
        key_positions: Int[Tensor, " k"],
        *,
        scale: float | Tensor = 1.0,
    ) -> Float[Tensor, "#b #h q k"] | None:
        """What is added to the scores.

        Args:
            query: before any rotation.
            query_positions: p_i.
            key_positions: j.
            scale: the score's factor on q·k, for terms that multiply queries as well.
        """
        return None

    def read(
        self,
        weights: Float[Tensor, "b h q k"],
        query_positions: Int[Tensor, " q"],
        key_positions: Int[Tensor, " k"],
    ) -> Float[Tensor, "b h q e"] | None:
        """What is added to the values that are read."""
        return None


class NoPosition(Position):
    """Attention that does not know where its keys stand: a set, not a sequence."""

    name = "none"
