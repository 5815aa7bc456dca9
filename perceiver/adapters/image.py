"""Images as byte arrays: every pixel, patches, or the places of a convolutional stem."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceiver.adapters.adapter import Adapter, check_floats, check_mask
from perceiver.positions import Positions
from perceiver.shapes import Bool, Float
from perceiver.types import Segment


def _checked(image: Tensor, mask: Tensor | None, channels: int) -> Tensor:
    """The image with zeros for padding, so that a token never holds what is not its image."""
    if image.dim() != 4 or image.shape[1] != channels:
        raise ValueError(
            f"image has shape {tuple(image.shape)}; expected (batch, {channels}, height, width)"
        )
    check_mask(mask, (len(image), *image.shape[2:]))
    return image if mask is None else image.masked_fill(~mask[:, None], 0.0)


def _flat(mask: Tensor | None, stride: int = 1) -> Tensor | None:
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
        values = _checked(values, mask, self.image_channels)
        content = values.flatten(2).transpose(1, 2)
        return self.segment(content, tuple(values.shape[2:]), _flat(mask))


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
        values = _checked(values, mask, self.image_channels)
        values = F.pad(values, (0, -values.shape[3] % side, 0, -values.shape[2] % side))
        patches = values.unfold(2, side, side).unfold(3, side, side)  # b p rows cols side side
        shape = (patches.shape[2], patches.shape[3])
        content = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        return self.segment(content, shape, _flat(mask, side))


class ConvStemAdapter(Adapter):
    """A convolution of stride 2 and a max-pool of stride 2, one token a place: 224 → 56.

    The preprocessing of Perceiver IO's convolutional ImageNet model (Jaegle et al. 2022, 4.5):
    7×7 convolution, batch norm, ReLU, 3×3 max-pool, all padded to "same" for sides that 4 divides.

    Args:
        channels: colour channels.
        size: height and width in pixels.
        stem_dim: channels of the convolution.
        position: makes the position codes of the reduced grid; see `Adapter`.

    Raises:
        ValueError: for sides below 4 pixels.
    """

    takes_present = True  # the batch norm's statistics are of images that are there

    def __init__(
        self,
        *,
        channels: int,
        size: Sequence[int],
        position: Callable[..., Positions] | None,
        stem_dim: int = 64,
    ) -> None:
        _check_sides(size)
        super().__init__(
            content_dim=stem_dim,
            shape=[side // 2 // 2 for side in size],
            position=position,
        )
        self.image_channels = channels
        self.stem = nn.Sequential(
            nn.ZeroPad2d((2, 3, 2, 3)),  # "same" for a stride of 2 pads one more at the end
            nn.Conv2d(channels, stem_dim, kernel_size=7, stride=2, bias=False),
            nn.BatchNorm2d(stem_dim),
            nn.ReLU(),
            nn.ZeroPad2d((0, 1, 0, 1)),  # values are ≥ 0 here, so zeros never win the maximum
            nn.MaxPool2d(kernel_size=3, stride=2),
        )

    def forward(
        self,
        values: Float[Tensor, "b p height width"],
        mask: Bool[Tensor, "b height width"] | None = None,
        present: Bool[Tensor, " b"] | None = None,
    ) -> Segment:
        values = _checked(values, mask, self.image_channels)
        check_floats(self, values)
        _check_sides(values.shape[2:])
        here = mask
        if present is not None:
            whole = present[:, None, None].expand(-1, *values.shape[2:])
            here = whole if mask is None else mask & whole
        if here is None:
            features = self.stem(values)
        else:
            features, here = self._masked_stem(values, here)
            mask = None if mask is None else here
        content = features.flatten(2).transpose(1, 2)
        return self.segment(content, tuple(features.shape[2:]), _flat(mask))

    def _masked_stem(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The stem where some places are of no image: norms and maxima see the others alone."""
        pad, conv, norm, relu, edge, pool = self.stem
        features = conv(pad(values))
        here = _halved(mask)
        real = relu(_batch_norm(norm, features, here)).masked_fill(~here[:, None], 0.0)
        return pool(edge(real)), _halved(here)


def _batch_norm(
    norm: Any,
    features: Float[Tensor, "b c rows columns"],
    here: Bool[Tensor, "b rows columns"],
) -> Float[Tensor, "b c rows columns"]:
    """A batch norm that learns from the places `here` alone; what others become is of no use."""
    if not norm.training:
        return norm(features)
    if isinstance(norm, nn.SyncBatchNorm):
        # Over processes: it takes no mask, and a GPU has to tell how many places there are.
        places = features.movedim(1, -1)
        real = norm(places[here][:, :, None, None])[:, :, 0, 0]
        return places.to(real.dtype, copy=True).index_put((here,), real).movedim(-1, 1)
    wide = features if features.dtype == torch.float64 else features.float()
    weights, axes = here[:, None].to(wide), (0, 2, 3)
    count = weights.sum().clamp(min=1)
    mean = (wide * weights).sum(axes) / count
    centred = wide - mean[:, None, None]
    var = (centred.square() * weights).sum(axes) / count
    with torch.no_grad():
        unbiased = var * count / (count - 1).clamp(min=1)
        for running, now in ((norm.running_mean, mean), (norm.running_var, unbiased)):
            # Padding alone teaches nothing.
            running.lerp_(now.to(running), norm.momentum * here.any().to(running))
        norm.num_batches_tracked += 1
    scale = norm.weight * (var + norm.eps).rsqrt()
    return (centred * scale[:, None, None] + norm.bias[:, None, None]).to(features.dtype)


def _check_sides(size: Sequence[int]) -> None:
    if min(size) < 4:
        raise ValueError(f"a stem that quarters the grid needs sides of 4 pixels, got {[*size]}")


def _halved(mask: Bool[Tensor, "b height width"]) -> Bool[Tensor, "b rows columns"]:
    """Where a layer of stride 2 has a place: n in a row become n // 2."""
    return mask[:, 1::2, 1::2]
