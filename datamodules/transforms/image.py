"""Transforms of images (channels, height, width) and of films (frames, channels, height, width)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F


class CentreCrop(nn.Module):
    """Scales until both sides suffice and keeps the centre; nothing if the size is right already.

    What evaluation does where training crops at random: list it in `data.transform`, and training
    passes it untouched.

    Args:
        size: (height, width) in pixels.
        scale: the shorter side before the crop, in sizes: 256/224 in the usual ImageNet protocol.
    """

    def __init__(self, *, size: Sequence[int], scale: float = 1.0) -> None:
        super().__init__()
        if len(size) != 2 or min(size) < 1 or scale < 1:
            raise ValueError(
                f"CentreCrop(size={list(size)}, scale={scale}): expected [height, width] and a "
                "scale of at least 1."
            )
        self.size, self.scale = tuple(size), scale

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if (height, width) == self.size:
            return image
        factor = self.scale * max(self.size[0] / height, self.size[1] / width)
        sides = [
            max(side, round(length * factor))
            for side, length in zip(self.size, (height, width), strict=True)
        ]
        return F.center_crop(F.resize(image, sides, antialias=True), list(self.size))


class Normalise(nn.Module):
    """(x / 255 − mean) / std of bytes, channel by channel, in place of the scaling to [−1, 1].

    Args:
        mean: of each channel, in [0, 1].
        std: standard deviation of each channel.
    """

    def __init__(self, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or min(std) <= 0:
            raise ValueError(
                f"Normalise(mean={list(mean)}, std={list(std)}): give one of each for every "
                "channel, and deviations above 0."
            )
        self.mean = torch.tensor(mean).reshape(-1, 1, 1)
        self.std = torch.tensor(std).reshape(-1, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        if image.dtype != torch.uint8 or image.shape[-3] != len(self.mean):
            raise ValueError(f"expected bytes of {len(self.mean)} channels")
        return (image / 255 - self.mean) / self.std
