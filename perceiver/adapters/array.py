"""Anything on a grid as a byte array: sensor series, point features, tables, embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from perceiver.adapters.adapter import Adapter
from perceiver.positions import Positions
from perceiver.shapes import Bool, Float
from perceiver.types import Segment


class ArrayAdapter(Adapter):
    """One token an element of an array (b, length_1, …, length_A, channels).

    Args:
        channels: numbers an element holds.
        shape: the largest grid that is meant to come, any number of axes.
        position: makes the position codes; see `Adapter`.
        embed_dim: width of a linear embedding of an element; None = its numbers as they are.
    """

    def __init__(
        self,
        *,
        channels: int,
        shape: Sequence[int],
        position: Callable[..., Positions] | None,
        embed_dim: int | None = None,
    ) -> None:
        super().__init__(content_dim=channels, shape=shape, position=position, embed_dim=embed_dim)
        self.array_channels, self.num_axes = channels, len(shape)

    def forward(
        self, values: Float[Tensor, "b ..."], mask: Bool[Tensor, "b ..."] | None = None
    ) -> Segment:
        if values.dim() != self.num_axes + 2 or values.shape[-1] != self.array_channels:
            raise ValueError(
                f"array has shape {tuple(values.shape)}; expected a batch, {self.num_axes} axes "
                f"and {self.array_channels} channels"
            )
        return self.segment(
            values.flatten(1, -2),
            tuple(values.shape[1:-1]),
            None if mask is None else mask.flatten(1),
        )
