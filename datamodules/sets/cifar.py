"""CIFAR-10 and CIFAR-100: 32 × 32 colour photographs, as folders or in the original files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torchvision.datasets import CIFAR10, CIFAR100

from datamodules.core.columns import Tensors
from datamodules.core.rows import Rows
from datamodules.layouts.folder import class_folder_rows
from datamodules.readers.image import refuse_other_shape
from datamodules.sets.download import PublishedDataModule, download, unpack

_PARTS = ("train", "test")


class CIFAR10DataModule(PublishedDataModule):
    """Reads root/train/<class>/*.jpg if there, else root/cifar-10-batches-py.

    The original files are pickles. torchvision compares each with its published checksum before
    it opens any, so that no other pickle is ever loaded.

    Args:
        val_share: part of the training pictures for validation, equal for every class.
        outside: allow symbolic links that lead out of the root.
        **published: options of `PublishedDataModule`, which refuses unknown ones.
    """

    available_modalities = ("image",)
    name, title = "cifar10", "CIFAR-10"
    library: ClassVar[type[CIFAR10]] = CIFAR10

    def __init__(self, *, val_share: float = 0.1, outside: bool = False, **published: Any) -> None:
        super().__init__(**published)
        self.val_share, self.outside = val_share, outside

    def found(self) -> Path | None:
        places = (self.root / "train", self.root / self.library.base_folder)
        return self.root if any(place.is_dir() for place in places) else None

    def fetch(self) -> None:
        library = self.library
        path = self.root / library.filename
        unpack(download(library.url, path, checksum=f"md5:{library.tgz_md5}"), self.root)
        path.unlink()

    def rows(self) -> Rows:
        """Raises ValueError where the original files are not as published."""
        root = str(self.folder())
        if (self.root / "train").is_dir():
            return class_folder_rows(
                self.root, kind="image", modalities=["image"], outside=self.outside
            )
        try:
            parts = {name: self.library(root, train=name == "train") for name in _PARTS}
        except RuntimeError as error:
            raise ValueError(
                f"{self.root / self.library.base_folder} is incomplete, or its files do not have "
                "the published checksums, and pickles from elsewhere are not opened: remove it, "
                f"and get {self.title} with: python train.py data={self.name} "
                f"data.root={self.root} data.download=true"
            ) from error
        pixels = torch.cat([torch.from_numpy(part.data) for part in parts.values()])
        pixels = pixels.permute(0, 3, 1, 2).contiguous()
        refuse_other_shape(self.readers["image"], pixels.shape[1:], of=self.library.base_folder)
        return Rows(
            {"image": Tensors(pixels)},
            labels=[part.classes[n] for part in parts.values() for n in part.targets],
            ids=[f"{n} image {index}" for n, part in parts.items() for index in range(len(part))],
            splits=[name for name, part in parts.items() for _ in range(len(part))],
            held_out=("val",),
            classes=parts["train"].classes,
        )


class CIFAR100DataModule(CIFAR10DataModule):
    """Reads root/train/<class>/*.jpg if there, else root/cifar-100-python, by its fine labels."""

    name, title = "cifar100", "CIFAR-100"
    library = CIFAR100
