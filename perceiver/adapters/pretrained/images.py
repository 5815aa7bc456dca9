"""What image encoders share: pictures of any size, scaled and normalised as the encoder learned."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceiver.adapters.adapter import check_floats, check_mask
from perceiver.adapters.pretrained.adapter import PretrainedAdapter

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class PretrainedImageAdapter(PretrainedAdapter):
    """Base of image encoders: (b, channels, height, width) in [−1, 1] → one token a place.

    A picture of another size than the encoder's is scaled to it, a padded one without its padding.
    Grey pictures are repeated in all channels.

    Args:
        encoder: takes (b, 3, height, width), normalised.
        architecture: has its `size` in pixels, and `mean` and `std` of channels in [0, 1].
        channels: of the pictures: the encoder's, or 1.
        **common: of every pretrained adapter.

    Raises:
        ValueError: for another number of channels.
    """

    kind: ClassVar[str] = "image"

    def __init__(
        self, *, encoder: nn.Module, architecture: Mapping[str, Any], channels: int, **common: Any
    ) -> None:
        size, mean, std = (list(architecture[name]) for name in ("size", "mean", "std"))
        if channels not in (1, len(mean)):
            raise ValueError(
                f"the encoder {architecture['name']} reads pictures of {len(mean)} channels, and "
                f"these have {channels}: set data.image.channels={len(mean)}"
            )
        with torch.no_grad():
            like = next(encoder.parameters())
            tokens, grid = self.features(encoder.eval(), like.new_zeros(1, len(mean), *size))
        super().__init__(
            encoder=encoder,
            architecture=architecture,
            content_dim=tokens.shape[2],
            shape=grid,
            prefix=tokens.shape[1] - grid[0] * grid[1],
            fixed=True,
            **common,
        )
        self.image_channels, self.size = channels, size
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    @classmethod
    def data_options(cls, architecture: Mapping[str, Any]) -> dict[str, Any]:
        return {"channels": len(architecture["mean"]), "size": list(architecture["size"])}

    @staticmethod
    @abstractmethod
    def features(encoder: Any, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens (b, prefix + rows × columns, c) and the grid (rows, columns)."""

    def check(self, values: Tensor, mask: Tensor | None) -> None:
        if values.dim() != 4 or values.shape[1] != self.image_channels:
            raise ValueError(
                f"image has shape {tuple(values.shape)}; expected (batch, {self.image_channels}, "
                "height, width)"
            )
        check_floats(self, values)
        check_mask(mask, (len(values), *values.shape[2:]))

    def cut(self, values: Tensor, mask: Tensor) -> Tensor:
        return values[:, : int(mask.any(1).sum()), : int(mask.any(0).sum())]

    def encode(self, examples: Sequence[Tensor]) -> list[Tensor]:
        if len({picture.shape for picture in examples}) == 1:
            pixels = self.scaled(torch.stack(list(examples)))
        else:
            pixels = torch.cat([self.scaled(picture[None]) for picture in examples])
        pixels = ((pixels + 1) / 2 - self.mean) / self.std
        like = next(self.encoder.parameters())
        return list(self.features(self.encoder, pixels.to(like.dtype))[0].unbind())

    def scaled(self, pixels: Tensor) -> Tensor:
        """Pictures in the encoder's size and number of channels."""
        if list(pixels.shape[2:]) != self.size:
            pixels = F.interpolate(pixels, self.size, mode="bilinear", antialias=True)
        return pixels.expand(-1, len(self.mean), -1, -1)


def places(maps: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Feature maps (b, c, rows, columns) as tokens, with their grid."""
    if maps.dim() != 4:
        raise ValueError(
            f"the encoder gives features of shape {tuple(maps.shape)}, which are no tokens of a "
            "picture: choose another one"
        )
    return maps.flatten(2).transpose(1, 2), (maps.shape[2], maps.shape[3])


def same_size(size: Sequence[int] | None, default: Sequence[int]) -> list[int]:
    """The size that was asked for, else the encoder's own.

    Raises:
        ValueError: it is no height and width.
    """
    chosen = list(default if size is None else size)
    if len(chosen) != 2 or not all(type(side) is int and side > 0 for side in chosen):
        raise ValueError(f"size={chosen} must be height and width in pixels")
    return chosen
