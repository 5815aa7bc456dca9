"""CIFAR-10: 32 × 32 colour photographs of ten classes, as JPEG folders or in the original files."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import CIFAR10

from datamodules.image_folder import ImageFolderDataModule
from datamodules.randomness import generator
from datamodules.splits import Source, hold_out

_PARTS = ("train", "test")


class PixelSource(Source):
    """Images that are in memory already.

    Args:
        pixels: (n, channels, height, width) uint8.
        targets: n class indices.
        ids: n names.
    """

    def __init__(self, pixels: Tensor, *, targets: Tensor, ids: list[str]) -> None:
        super().__init__(targets=targets, ids=ids)
        self.pixels = pixels

    def read(self, index: int, rng: np.random.Generator) -> dict[str, Tensor | None]:
        return {"image": self.pixels[index]}


class CIFAR10DataModule(ImageFolderDataModule):
    """Reads root/train/<class>/*.jpg if there, else root/cifar-10-batches-py.

    Args:
        download: fetch the original files through torchvision if absent.
        **folder: options of `ImageFolderDataModule`, which refuses unknown ones.
    """

    def __init__(self, *, download: bool = False, **folder: Any) -> None:
        super().__init__(**folder)
        self.download = download

    def prepare_data(self) -> None:
        if self.download and not (self.root / "train").is_dir():
            CIFAR10(str(self.root), download=True)

    def build(self) -> tuple[list[str], dict[str, Source]]:
        """Raises FileNotFoundError if neither layout is there."""
        if (self.root / "train").is_dir():
            return super().build()
        try:
            parts = {name: CIFAR10(str(self.root), train=name == "train") for name in _PARTS}
        except RuntimeError as error:
            raise FileNotFoundError(
                f"Neither train/<class>/*.jpg nor cifar-10-batches-py in {self.root}: point "
                "data.root at them, or fetch them with "
                f"python train.py data=cifar10 data.root={self.root} data.download=true"
            ) from error
        if (self.image.channels, self.image.size) != (3, (32, 32)):
            raise ValueError(
                "cifar-10-batches-py holds images of 3 channels and [32, 32] pixels, data.image "
                f"says {self.image.channels} and {list(self.image.size)}."
            )
        train, test = (_source(part, name) for name, part in parts.items())
        is_val = hold_out(train.targets.tolist(), self.val_share, rng=generator(self.split_seed))
        sources = {"train": _select(train, ~is_val), "val": _select(train, is_val), "test": test}
        return list(parts["train"].classes), sources


def _source(part: CIFAR10, name: str) -> PixelSource:
    pixels = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()
    ids = [f"{name} image {index}" for index in range(len(pixels))]
    return PixelSource(pixels, targets=torch.tensor(part.targets), ids=ids)


def _select(source: PixelSource, chosen: np.ndarray) -> PixelSource:
    indices = np.flatnonzero(chosen)
    ids = [source.ids[index] for index in indices]
    return PixelSource(source.pixels[indices], targets=source.targets[indices], ids=ids)
