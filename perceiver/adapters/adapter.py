"""What every adapter shares: content and position codes become a segment."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from perceiver.ops.init import lecun_linear
from perceiver.positions import Positions
from perceiver.shapes import Bool, Float
from perceiver.types import Segment


def check_mask(mask: Tensor | None, shape: Sequence[int]) -> None:
    """Raise ValueError unless `mask` is None or boolean and of the given shape."""
    if mask is not None and (mask.dtype is not torch.bool or mask.shape != torch.Size(shape)):
        raise ValueError(
            f"mask is {mask.dtype} of shape {tuple(mask.shape)}; expected bool of shape "
            f"{tuple(shape)}, True on real elements"
        )


def check_floats(adapter: nn.Module, values: Tensor) -> None:
    """Raise ValueError for values that are codes of something, such as bytes of a picture."""
    if not values.is_floating_point():
        raise ValueError(
            f"{type(adapter).__name__} needs floating-point values, got {values.dtype}: "
            "convert and scale them first"
        )


class Adapter(nn.Module, ABC):
    """Base of adapters: one modality's raw tensor → a `Segment`.

    `channels`: the width of its tokens. `num_tokens`: the most of them that are meant to come.
    `takes_present`: whether `forward` takes `present` (b,) as well, True where an example has the
    modality, because what it learns of a batch as a whole should not be of blanks.

    Args:
        content_dim: width of a token's content before the embedding.
        shape: the largest grid of tokens, handed to `position`.
        position: makes the position codes from `shape=`; None = no positions.
        embed_dim: width of a linear embedding of the content; None = the content as it is.

    Raises:
        ValueError: if positions are to be added to content of another width.
    """

    takes_present: ClassVar[bool] = False

    def __init__(
        self,
        *,
        content_dim: int,
        shape: Sequence[int],
        position: Callable[..., Positions] | None,
        embed_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.embed = lecun_linear(content_dim, embed_dim) if embed_dim else nn.Identity()
        content_dim = embed_dim or content_dim
        self.position = position(shape=tuple(shape)) if position else None
        self.channels, self.num_tokens = content_dim, math.prod(shape)
        if self.position is not None and not self.position.add:
            self.channels += self.position.dim
        elif self.position is not None and self.position.dim != content_dim:
            raise ValueError(
                f"positions of width {self.position.dim} cannot be added to content of width "
                f"{content_dim}: make the two equal, or concatenate (add=false)"
            )

    @abstractmethod
    def forward(self, values: Tensor, mask: Tensor | None = None) -> Segment:
        """The segment of (b, …) raw values; `mask` (b, length …) is True on real elements.

        Real elements come first along every axis, padding behind them; whatever stands in the
        padding, it changes no real token.
        """

    def segment(
        self,
        content: Float[Tensor, "b m c"],
        shape: tuple[int, ...],
        mask: Bool[Tensor, "b m"] | None = None,
    ) -> Segment:
        """Embed the content and set the position codes of the grid `shape` beside it.

        Raises:
            ValueError: for content that is not floating-point, a mask that is not bool (b, m), or
                a mask beside positions that padding would move.
        """
        check_floats(self, content)
        check_mask(mask, content.shape[:2])
        if mask is not None and self.position is not None and self.position.is_relative:
            raise ValueError(
                f"{type(self).__name__} was given inputs of several sizes, padded to one, but its "
                "positions are relative to the whole input: padding would move them; set "
                "position.absolute=true in the adapter"
            )
        content = self.embed(content)
        axes = self.position(shape) if self.position is not None else ()
        if self.position is not None and self.position.add:
            positions = Segment(content[:1, :, :0], axes, shape=shape).dense()
            content, axes = content + positions, ()
        return Segment(content=content, axes=axes, mask=mask, shape=shape)
