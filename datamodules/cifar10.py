"""CIFAR-10: 32 × 32 colour photographs of ten classes, as JPEG folders or in the original files."""

from __future__ import annotations

from typing import Any

import torch
from torchvision.datasets import CIFAR10

from datamodules.columns import Tensors
from datamodules.image_folder import ImageFolderDataModule
from datamodules.rows import Rows

_PARTS = ("train", "test")


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

    def rows(self) -> Rows:
        """Raises FileNotFoundError if neither layout is there."""
        if (self.root / "train").is_dir():
            return super().rows()
        try:
            parts = {name: CIFAR10(str(self.root), train=name == "train") for name in _PARTS}
        except RuntimeError as error:
            raise FileNotFoundError(
                f"Neither train/<class>/*.jpg nor cifar-10-batches-py in {self.root}: point "
                "data.root at them, or fetch them with "
                f"python train.py data=cifar10 data.root={self.root} data.download=true"
            ) from error
        image = self.kinds["image"]
        if (image.channels, image.size) != (3, (32, 32)):
            raise ValueError(
                "cifar-10-batches-py holds images of 3 channels and [32, 32] pixels, data.image "
                f"says {image.channels} and {list(image.size)}."
            )
        pixels = torch.cat([torch.from_numpy(part.data) for part in parts.values()])
        return Rows(
            {"image": Tensors(pixels.permute(0, 3, 1, 2).contiguous())},
            labels=[part.classes[n] for part in parts.values() for n in part.targets],
            ids=[f"{n} image {index}" for n, part in parts.items() for index in range(len(part))],
            splits=[name for name, part in parts.items() for _ in range(len(part))],
            held_out=("val",),
            classes=parts["train"].classes,
        )
