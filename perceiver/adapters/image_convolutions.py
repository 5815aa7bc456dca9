"""Images behind convolutions: stages that fit small pictures, or the stem of ImageNet's models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from perceiver.adapters.adapter import Adapter, check_floats
from perceiver.adapters.image import PatchAdapter, checked, fitting_patch_size, flat
from perceiver.positions import Positions
from perceiver.shapes import Bool, Float
from perceiver.types import Segment


def fitting_stages(size: Sequence[int]) -> tuple[list[int], list[int]]:
    """Channels and strides of the stages that fit a size: they leave seven places a side, or more.

    None for sides below 14 pixels. The first stage keeps the grid of sides below 56 pixels, whose
    detail is in single pixels.

    Args:
        size: height and width in pixels.
    """
    halvings = max(0, int(math.log2(min(size) / 7)))
    strides = [2] * halvings if halvings > 2 else [1, 2, 2][: halvings + 1] if halvings else []
    return [min(32 * 2**number, 128) for number in range(len(strides))], strides


class ConvStagesAdapter(PatchAdapter):
    """3×3 convolutions in stages, then one token a patch of the places that are left: 32 → 8.

    A stage is a convolution, a batch norm and a ReLU. Convolutions see what neighbours have in
    common, which patches have to learn for each place anew: of few pictures they learn more. The
    smallest pictures have no stages, and are read in patches.

    Args:
        channels: colour channels.
        size: height and width in pixels that are meant to come.
        position: makes the position codes of the grid of patches; see `Adapter`.
        dims: channels of each stage; None = as `fitting_stages` has them; [] = no stages.
        strides: pixels from one place of a stage to the next, along each axis; None = likewise.
        patch_size: side of a patch in places; None = 1, and 2 without stages, if it divides both
            sides, or `fitting_patch_size` if that is more.
        embed_dim: width of a linear embedding of a patch; None = 32 without stages, else none.

    Raises:
        ValueError: for dims and strides of different numbers of stages, or a `patch_size` that
            does not divide the grid.
    """

    takes_present = True  # the batch norms' statistics are of images that are there

    def __init__(
        self,
        *,
        channels: int,
        size: Sequence[int],
        position: Callable[..., Positions] | None,
        dims: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        patch_size: int | None = None,
        embed_dim: int | None = None,
    ) -> None:
        fitting = fitting_stages(size)
        dims = fitting[0] if dims is None else dims
        strides = fitting[1] if strides is None else strides
        if len(dims) != len(strides):
            raise ValueError(f"dims={[*dims]} and strides={[*strides]} are of different lengths")
        grid = [_strided(side, strides) for side in size]
        if dims:
            patch_size = patch_size or 1
        else:
            halved = 1 if any(side % 2 for side in size) else 2
            patch_size = patch_size or max(halved, fitting_patch_size(size))
            embed_dim = embed_dim or 32
        widths = [channels, *dims]
        super().__init__(
            channels=widths[-1],
            size=grid,
            patch_size=patch_size,
            position=position,
            embed_dim=embed_dim,
        )
        self.picture_channels = channels
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, dim, kernel_size=3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(dim),
                nn.ReLU(),
            )
            for before, dim, stride in zip(widths, dims, strides, strict=False)
        )
        self.strides = tuple(strides)

    def forward(
        self,
        values: Float[Tensor, "b p height width"],
        mask: Bool[Tensor, "b height width"] | None = None,
        present: Bool[Tensor, " b"] | None = None,
    ) -> Segment:
        values = checked(values, mask, self.picture_channels)
        check_floats(self, values)
        here = _places(values, mask, present)
        for stage, stride in zip(self.stages, self.strides, strict=True):
            if here is None:
                values = stage(values)
                continue
            conv, norm, relu = cast(nn.Sequential, stage)
            here = here[:, ::stride, ::stride]
            values = relu(_batch_norm(norm, conv(values), here)).masked_fill(~here[:, None], 0.0)
            mask = None if mask is None else mask[:, ::stride, ::stride]
        return super().forward(values, mask)


def _strided(side: int, strides: Sequence[int]) -> int:
    """Places along an axis of so many pixels after all stages."""
    for stride in strides:
        side = -(-side // stride)
    return side


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
        values = checked(values, mask, self.image_channels)
        check_floats(self, values)
        _check_sides(values.shape[2:])
        here = _places(values, mask, present)
        if here is None:
            features = self.stem(values)
        else:
            features, here = self._masked_stem(values, here)
            mask = None if mask is None else here
        content = features.flatten(2).transpose(1, 2)
        return self.segment(content, tuple(features.shape[2:]), flat(mask))

    def _masked_stem(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The stem where some places are of no image: norms and maxima see the others alone."""
        pad, conv, norm, relu, edge, pool = self.stem
        features = conv(pad(values))
        here = _halved(mask)
        real = relu(_batch_norm(norm, features, here)).masked_fill(~here[:, None], 0.0)
        return pool(edge(real)), _halved(here)


def _places(values: Tensor, mask: Tensor | None, present: Tensor | None) -> Tensor | None:
    """(b, height, width), True where there is a picture; None = everywhere."""
    if present is None:
        return mask
    whole = present[:, None, None].expand(-1, *values.shape[2:])
    return whole if mask is None else mask & whole


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
