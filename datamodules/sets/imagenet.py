"""ImageNet (ILSVRC 2012): photographs of 1,000 classes, as unpacked from its archives."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from scipy.io import loadmat

from datamodules.core.columns import Files
from datamodules.core.rows import Rows
from datamodules.core.rows_datamodule import RowsDataModule
from datamodules.layouts.folder import class_folders, list_class_folders, walk
from datamodules.readers import READERS

_KAGGLE = "LOC_val_solution.csv"  # image, "wnid x y x y …"
_DEVKITS = ("ILSVRC2012_devkit_t12", "devkit", ".")


class ImageNetDataModule(RowsDataModule):
    """root/train/<wnid>/*.JPEG and root/val/<wnid>/*.JPEG; the latter is the test.

    root/val may also hold the 50,000 pictures in no folders, beside Kaggle's LOC_val_solution.csv
    or the development kit (ILSVRC2012_devkit_t12), which say their classes. The labels of the
    challenge's own test are not published, so validation is a part of train.

    Args:
        root: folder of train/ and val/.
        val_share: part of train for validation, equal for every class.
        outside: allow symbolic links that lead out of the root.
        **common: options of `RowsDataModule`, which refuses unknown ones.
    """

    available_modalities = ("image",)

    def __init__(
        self, *, root: str, val_share: float = 0.01, outside: bool = False, **common: Any
    ) -> None:
        super().__init__(**common)
        self.root, self.outside = Path(root), outside
        self.val_share = val_share

    def rows(self) -> Rows:
        """Raises FileNotFoundError without the folders, or without the classes of val/."""
        for split in ("train", "val"):
            if not (self.root / split).is_dir():
                raise FileNotFoundError(
                    f"{self.root / split} is not a folder: data.root={self.root} must hold train/ "
                    "and val/ of ILSVRC 2012, unpacked (image-net.org, after a registration)."
                )
        parts = {"train": "train"}
        if class_folders(self.root / "val"):
            parts["test"] = "val"
        files, classes = list_class_folders(self.root, parts, kind="image")
        if "test" not in parts:
            names = walk(self.root / "val", READERS["image"].suffixes)
            wnids = _read_kaggle(self.root) or _read_devkit(self.root)
            if unknown := [name for name in names if Path(name).stem not in wnids]:
                raise FileNotFoundError(
                    f"The class of {self.root / 'val' / unknown[0]} is not known: put the pictures "
                    f"of val/ into a folder for each class, or {_KAGGLE} or the development kit "
                    f"(ILSVRC2012_devkit_t12) into {self.root}."
                )
            files += [(f"val/{name}", wnids[Path(name).stem], "test") for name in names]
        names, labels, splits = zip(*files, strict=True) if files else ((), (), ())
        return Rows(
            {"image": Files(names, root=self.root, outside=self.outside)},
            labels=labels,
            ids=names,
            splits=splits,
            held_out=("val",),
            classes=classes,
        )


def _read_kaggle(root: Path) -> dict[str, str]:
    """Picture → WordNet id."""
    path = root / _KAGGLE
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {name: boxes.split()[0] for name, boxes in list(csv.reader(file))[1:]}


def _read_devkit(root: Path) -> dict[str, str]:
    """Picture → WordNet id, from the numbers of the pictures' classes and a table of these."""
    data = next((root / d / "data" for d in _DEVKITS if (root / d / "data").is_dir()), None)
    if data is None:
        return {}
    synsets = loadmat(data / "meta.mat", squeeze_me=True)["synsets"]
    wnids = dict(zip(synsets["ILSVRC2012_ID"].tolist(), synsets["WNID"].tolist(), strict=True))
    numbers = (data / "ILSVRC2012_validation_ground_truth.txt").read_text().split()
    return {
        f"ILSVRC2012_val_{place:08}": wnids[int(number)]
        for place, number in enumerate(numbers, start=1)
    }
