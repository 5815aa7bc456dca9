"""MNIST and Fashion-MNIST: 28 × 28 grey pictures of ten classes, in the original IDX files."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any, ClassVar

import torch
from torchvision.datasets import MNIST, FashionMNIST
from torchvision.datasets.mnist import read_image_file, read_label_file

from datamodules.core.columns import Tensors
from datamodules.core.rows import Rows
from datamodules.readers.image import refuse_other_shape
from datamodules.sets.download import PublishedDataModule, download, first_folder
from perceiver.files import replacing

_PARTS = {"train": "train", "test": "t10k"}


class MNISTDataModule(PublishedDataModule):
    """70,000 digits (LeCun, Cortes, Burges); torchvision knows where they are.

    Args:
        val_share: part of the 60,000 training pictures for validation, equal for every class.
        **published: options of `PublishedDataModule`, which refuses unknown ones.
    """

    available_modalities = ("image",)
    name, title = "mnist", "MNIST"
    library: ClassVar[type[MNIST]] = MNIST

    def __init__(self, *, val_share: float = 0.1, **published: Any) -> None:
        super().__init__(**published)
        self.val_share = val_share

    def found(self) -> Path | None:
        places = (".", "raw", f"{self.library.__name__}/raw")
        return first_folder(self.root, places, holding="t10k-labels-idx1-ubyte")

    def fetch(self) -> None:
        folder = self.root / self.library.__name__ / "raw"
        for name, checksum in self.library.resources:
            urls = [mirror + name for mirror in self.library.mirrors]
            archive = download(urls, folder / name, checksum=f"md5:{checksum}")
            with gzip.open(archive) as packed, replacing(archive.with_suffix("")) as file:
                shutil.copyfileobj(packed, file)
            archive.unlink()

    def rows(self) -> Rows:
        """Raises ValueError for a file that is none of the format, or cut short."""
        folder = self.folder()
        pixels = {s: _read(folder / f"{n}-images-idx3-ubyte") for s, n in _PARTS.items()}
        labels = {s: _read(folder / f"{n}-labels-idx1-ubyte") for s, n in _PARTS.items()}
        for split, values in pixels.items():
            if len(values) != len(labels[split]):
                raise ValueError(
                    f"{folder} has {len(values):,} pictures and {len(labels[split]):,} labels for "
                    f"{split}: fetch its files anew."
                )
        images = torch.cat([pixels[split] for split in _PARTS])[:, None]
        refuse_other_shape(self.readers["image"], images.shape[1:], of=self.title)
        return Rows(
            {"image": Tensors(images)},
            labels=[self.library.classes[n] for split in _PARTS for n in labels[split].tolist()],
            ids=[f"{split} image {n}" for split in _PARTS for n in range(len(pixels[split]))],
            splits=[split for split in _PARTS for _ in range(len(pixels[split]))],
            held_out=("val",),
            classes=self.library.classes,
        )


class FashionMNISTDataModule(MNISTDataModule):
    """70,000 pictures of clothes (Xiao et al. 2017)."""

    name, title = "fashion_mnist", "Fashion-MNIST"
    library = FashionMNIST


def _read(path: Path) -> torch.Tensor:
    try:
        return (read_image_file if "images" in path.name else read_label_file)(str(path))
    except (AssertionError, TypeError, ValueError, KeyError, IndexError, RuntimeError) as error:
        raise ValueError(f"{path} is no IDX file, or is cut short: fetch it anew.") from error
