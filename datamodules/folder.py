"""Files in folders named after their class: root/train/cat/1.jpg, root/test/cat/2.jpg."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamodules.columns import Files
from datamodules.readers import KINDS
from datamodules.rows import Rows, RowsDataModule


class ClassFolderDataModule(RowsDataModule):
    """Base of these layouts; the classes are the folders of root/train, in sorted order.

    The files are those of the first kind that a subclass `offers`; further kinds (the sound of a
    film) are read from the same files.

    Args:
        root: folder of train/, test/ and, optionally, val/.
        val_share: part of train for validation where there is no val/, equal for every class.
        **common: options of `RowsDataModule`, which refuses unknown ones.
    """

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
                    f"and test/ with a folder of {self.offers[0]} files for each class."
                )
        classes = sorted(path.name for path in (self.root / "train").iterdir() if path.is_dir())
        found = ("train", "val", "test") if (self.root / "val").is_dir() else ("train", "test")
        files = [(file, split) for split in found for file in self._list(split, classes)]
        names = [file for file, _ in files]
        column = Files(names, root=self.root, outside=True)
        return Rows(
            dict.fromkeys(self.modalities, column),
            labels=[file.split("/")[1] for file in names],
            ids=names,
            splits=[split for _, split in files],
            held_out=() if "val" in found else ("val",),
            classes=classes,
        )

    def _list(self, split: str, classes: list[str]) -> list[str]:
        """The files of a split, as paths below the root."""
        names, suffixes = [], KINDS[self.offers[0]].suffixes
        for folder in sorted(path for path in (self.root / split).iterdir() if path.is_dir()):
            if folder.name not in classes:
                raise ValueError(
                    f"{folder} is a class that {self.root / 'train'} does not have: "
                    f"add {self.offers[0]} files to train or remove the folder."
                )
            files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
            names += [path.relative_to(self.root).as_posix() for path in files]
        return names
