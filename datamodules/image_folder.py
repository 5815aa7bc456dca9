"""Pictures in folders named after their class: root/train/cat/1.jpg, root/test/cat/2.jpg."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.base import MultimodalDataModule
from datamodules.randomness import generator
from datamodules.readers.image import ImageOptions, read_image
from datamodules.splits import Source, hold_out

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


class ImageSource(Source):
    """Image files, decoded when read, or all at once into memory."""

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        targets: Sequence[int],
        root: Path,
        options: ImageOptions,
        cached: bool,
    ) -> None:
        super().__init__(targets=targets, ids=[str(path.relative_to(root)) for path in paths])
        self.paths = list(paths)
        self.options = options
        self.pixels: Tensor | None = None
        if cached:
            self.pixels = torch.empty(
                (len(self.paths), options.channels, *options.size), dtype=torch.uint8
            )
            # Threads: Pillow decodes outside Python's lock.
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                images = pool.map(lambda path: read_image(path, options), self.paths)
                for row, image in zip(self.pixels, images, strict=True):
                    row.copy_(image)

    def read(self, index: int, rng: np.random.Generator) -> dict[str, Tensor | None]:
        if self.pixels is not None:
            return {"image": self.pixels[index]}
        return {"image": read_image(self.paths[index], self.options)}


class ImageFolderDataModule(MultimodalDataModule):
    """Classification of pictures; the classes are the folders of root/train, in sorted order.

    Args:
        root: folder of train/, test/ and, optionally, val/.
        val_share: part of train for validation where there is no val/, equal for every class.
        cache_gib: keep all pictures decoded in memory if they take less than this, in GiB.
        **common: options of `MultimodalDataModule`, which refuses unknown ones.
    """

    offers = ("image",)

    def __init__(
        self, *, root: str, val_share: float = 0.1, cache_gib: float = 1.0, **common: Any
    ) -> None:
        super().__init__(**common)
        self.root = Path(root)
        self.val_share = val_share
        self.cache_gib = cache_gib

    def build(self) -> tuple[list[str], dict[str, Source]]:
        """Raises FileNotFoundError without root/train or root/test, ValueError on a new class."""
        for split in ("train", "test"):
            if not (self.root / split).is_dir():
                raise FileNotFoundError(
                    f"{self.root / split} is not a folder: data.root={self.root} must hold train/ "
                    "and test/ with a folder of images for each class."
                )
        classes = sorted(path.name for path in (self.root / "train").iterdir() if path.is_dir())
        files = {split: self._list(split, classes) for split in ("train", "test")}
        if (self.root / "val").is_dir():
            files["val"] = self._list("val", classes)
        else:
            targets = [target for _, target in files["train"]]
            held_out = hold_out(targets, self.val_share, rng=generator(self.split_seed))
            both = list(zip(files["train"], held_out, strict=True))
            files["train"] = [file for file, is_val in both if not is_val]
            files["val"] = [file for file, is_val in both if is_val]
        num_bytes = self.image.channels * prod(self.image.size) * sum(map(len, files.values()))
        return classes, {
            split: ImageSource(
                [path for path, _ in pairs],
                targets=[target for _, target in pairs],
                root=self.root,
                options=self.image,
                cached=num_bytes < self.cache_gib * 2**30,
            )
            for split, pairs in files.items()
        }

    def _list(self, split: str, classes: list[str]) -> list[tuple[Path, int]]:
        pairs = []
        for folder in sorted(path for path in (self.root / split).iterdir() if path.is_dir()):
            if folder.name not in classes:
                raise ValueError(
                    f"{folder} is a class that {self.root / 'train'} does not have: "
                    "add training images or remove the folder."
                )
            target = classes.index(folder.name)
            images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
            pairs += [(path, target) for path in images]
        return pairs
