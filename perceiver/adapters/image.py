"""Images as byte arrays: every pixel, or patches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

from perceiver.adapters.adapter import Adapter, check_mask
from perceiver.positions import Positions
from perceiver.shapes import Bool, Float
from perceiver.types import Segment


def checked(image: Tensor, mask: Tensor | None, channels: int) -> Tensor:
    """The image with zeros for padding, so that a token never holds what is not its image."""
    if image.dim() != 4 or image.shape[1] != channels:
        raise ValueError(
            f"image has shape {tuple(image.shape)}; expected (batch, {channels}, height, width)"
        )
    check_mask(mask, (len(image), *image.shape[2:]))
    return image if mask is None else image.masked_fill(~mask[:, None], 0.0)


def flat(mask: Tensor | None, stride: int = 1) -> Tensor | None:
    """The mask of tokens that begin at every `stride`-th pixel."""
    return None if mask is None else mask[:, ::stride, ::stride].flatten(1)


def fitting_patch_size(size: Sequence[int]) -> int:
    """The largest side of a square patch that divides an image and leaves seven patches a side."""
    shared = math.gcd(*size)
    return max(
        p for p in range(1, shared + 1) if shared % p == 0 and (p == 1 or 7 * p <= min(size))
    )


class PixelAdapter(Adapter):
    """One token a pixel, its channels as content (Jaegle et al. 2021, 4.1).

    Args:
        channels: colour channels.
        size: height and width in pixels that are meant to come.
        position: makes the position codes; see `Adapter`.
        embed_dim: width of a 1×1 convolution of the pixels; None = raw values.
    """

    def __init__(
        self,
        *,
        channels: int,
        size: Sequence[int],
        position: Callable[..., Positions] | None,
        embed_dim: int | None = None,
    ) -> None:
        super().__init__(content_dim=channels, shape=size, position=position, embed_dim=embed_dim)
        self.image_channels = channels

    def forward(
        self,
        values: Float[Tensor, "b p height width"],
        mask: Bool[Tensor, "b height width"] | None = None,
    ) -> Segment:
        values = checked(values, mask, self.image_channels)
        content = values.flatten(2).transpose(1, 2)
        return self.segment(content, tuple(values.shape[2:]), flat(mask))


class PatchAdapter(Adapter):
    """One token a square patch, its pixels as content: channel by channel, row by row.

    Images of other sizes than `size` may come; what lacks to a whole patch is zeros.

    Args:
        channels: colour channels.
        size: height and width in pixels that are meant to come; `patch_size` divides both.
        patch_size: side of a patch in pixels; None = `fitting_patch_size`.
        position: makes the position codes of the grid of patches; see `Adapter`.
        embed_dim: width of a linear embedding of a patch; None = its pixels as they are.

    Raises:
        ValueError: if `patch_size` does not divide the size.
    """

    def __init__(
        self,
        *,
        channels: int,
        size: Sequence[int],
        patch_size: int | None,
        position: Callable[..., Positions] | None,
        embed_dim: int | None = None,
    ) -> None:
        patch_size = patch_size or fitting_patch_size(size)
        if any(side % patch_size for side in size):
            raise ValueError(f"patch_size={patch_size} does not divide the image size {list(size)}")
        super().__init__(
            content_dim=channels * patch_size**2,
            shape=[side // patch_size for side in size],
            position=position,
            embed_dim=embed_dim,
        )
        self.image_channels, self.patch_size = channels, patch_size

    def forward(
        self,
        values: Float[Tensor, "b p height width"],
        mask: Bool[Tensor, "b height width"] | None = None,
    ) -> Segment:
        side = self.patch_size
        values = checked(values, mask, self.image_channels)
        values = F.pad(values, (0, -values.shape[3] % side, 0, -values.shape[2] % side))
        patches = values.unfold(2, side, side).unfold(3, side, side)  # b p rows cols side side
        shape = (patches.shape[2], patches.shape[3])
        content = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        return self.segment(content, shape, flat(mask, side))
