"""Pictures in folders named after their class: root/train/cat/1.jpg, root/test/cat/2.jpg."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamodules.columns import Files
from datamodules.readers.image import ImageOptions
from datamodules.rows import Rows, RowsDataModule


class ImageFolderDataModule(RowsDataModule):
    """Classification of pictures; the classes are the folders of root/train, in sorted order.

    Args:
        root: folder of train/, test/ and, optionally, val/.
        val_share: part of train for validation where there is no val/, equal for every class.
        **common: options of `RowsDataModule`, which refuses unknown ones.
    """

    offers = ("image",)

    def __init__(self, *, root: str, val_share: float = 0.1, **common: Any) -> None:
        super().__init__(**common)
        self.root = Path(root)
        self.val_share = val_share

    def rows(self) -> Rows:
        """Raises FileNotFoundError without root/train or root/test, ValueError on a new class."""
        for split in ("train", "test"):
            if not (self.root / split).is_dir():
                raise FileNotFoundError(
                    f"{self.root / split} is not a folder: data.root={self.root} must hold train/ "
                    "and test/ with a folder of images for each class."
                )
        classes = sorted(path.name for path in (self.root / "train").iterdir() if path.is_dir())
        found = ("train", "val", "test") if (self.root / "val").is_dir() else ("train", "test")
        files = [(file, split) for split in found for file in self._list(split, classes)]
        names = [file for file, _ in files]
        return Rows(
            {"image": Files(names, root=self.root, outside=True)},
            labels=[file.split("/")[1] for file in names],
            ids=names,
            splits=[split for _, split in files],
            held_out=() if "val" in found else ("val",),
            classes=classes,
        )

    def _list(self, split: str, classes: list[str]) -> list[str]:
        """The pictures of a split, as paths below the root."""
        names = []
        for folder in sorted(path for path in (self.root / split).iterdir() if path.is_dir()):
            if folder.name not in classes:
                raise ValueError(
                    f"{folder} is a class that {self.root / 'train'} does not have: "
                    "add training images or remove the folder."
                )
            images = sorted(
                path for path in folder.rglob("*") if path.suffix.lower() in ImageOptions.suffixes
            )
            names += [path.relative_to(self.root).as_posix() for path in images]
        return names
