"""Files in folders named after their class: root/train/cat/1.jpg, or root/cat/1.jpg."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.core.columns import Files
from datamodules.core.dataset import SPLITS
from datamodules.core.rows import Rows
from datamodules.core.rows_datamodule import RowsDataModule
from datamodules.readers import READERS


class ClassFolderDataModule(RowsDataModule):
    """Base of these layouts; the classes are the folders of root/train or of root, sorted.

    The files are those of the first of `available_modalities`; further kinds (the sound of a
    film) are read from the same files.

    Args:
        root: folder of train/, test/ and, optionally, val/; or of the classes themselves.
        val_share: part of the files for validation where there is no val/, equal for every class.
        test_share: likewise for the test where there is no train/.
        outside: allow symbolic links that lead out of the root.
        **common: options of `RowsDataModule`, which refuses unknown ones.
    """

    def __init__(
        self,
        *,
        root: str,
        val_share: float = 0.1,
        test_share: float = 0.2,
        outside: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.root, self.outside = Path(root), outside
        self.val_share, self.test_share = val_share, test_share

    def rows(self) -> Rows:
        """Raises FileNotFoundError without such folders, ValueError on a new class."""
        return class_folder_rows(
            self.root,
            kind=self.available_modalities[0],
            modalities=self.modalities,
            outside=self.outside,
        )


def class_folder_rows(
    root: Path,
    *,
    kind: str,
    modalities: Sequence[str],
    classes: Sequence[str] | None = None,
    inside: Path | None = None,
    outside: bool = False,
) -> Rows:
    """The files of a kind in folders named after their class.

    Args:
        root: folder of train/, test/ and perhaps val/, or of the classes.
        kind: of the files.
        modalities: that are read from each file.
        classes: names of folders; others are passed over. None = all of train.
        inside: the folder that no file may leave; None = the root.
        outside: allow symbolic links that lead out of it.

    Raises:
        FileNotFoundError: the folders are not there.
        ValueError: a class is not in train.
    """
    found = [split for split in SPLITS if (root / split).is_dir()]
    made = not found and any(class_folders(root))
    for split in () if made else ("train", "test"):
        if split not in found:
            raise FileNotFoundError(
                f"{root / split} is not a folder: data.root={root} must hold train/ and test/ "
                f"with a folder of {kind} files for each class, or these folders alone."
            )
    parts = {"train": "."} if made else {split: split for split in found}
    files, known = list_class_folders(root, parts, kind=kind, classes=classes)
    names = [name for name, _, _ in files]
    return Rows(
        dict.fromkeys(modalities, Files(names, root=root, inside=inside, outside=outside)),
        labels=[label for _, label, _ in files],
        ids=names,
        splits=[split for _, _, split in files],
        held_out=("test", "val") if made else () if "val" in found else ("val",),
        classes=known,
    )


def list_class_folders(
    root: Path, parts: Mapping[str, str], *, kind: str, classes: Sequence[str] | None = None
) -> tuple[list[tuple[str, str, str]], list[str]]:
    """The files of a kind, and the classes.

    Args:
        root: a folder.
        parts: split → folder below the root that holds a folder for each class; "train" first.
        kind: of the files.
        classes: names of folders; others are passed over. None = all of train.

    Returns:
        (path below the root, class, split) of each file, and the classes.

    Raises:
        ValueError: a class is not in train.
    """
    known = list(classes or class_folders(root / parts["train"]))
    files = []
    for split, part in parts.items():
        above = "" if part == "." else f"{part}/"
        for label in known if classes else class_folders(root / part):
            if label not in known:
                raise ValueError(
                    f"{root / part / label} is a class that {root / parts['train']} does not "
                    f"have: add {kind} files to train or remove the folder."
                )
            found = walk(root / part / label, READERS[kind].suffixes)
            files += [(f"{above}{label}/{name}", label, split) for name in found]
    return files, known


def class_folders(folder: Path) -> list[str]:
    """The folders in a folder, sorted, without hidden ones."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def walk(folder: Path, suffixes: Collection[str]) -> list[str]:
    """The files of some suffixes in a folder and those below it, as sorted relative paths.

    Links are followed, so that what must not be read is refused by name rather than passed over.
    """
    found = []
    waiting: list[tuple[str, str, frozenset[str]]] = [(str(folder), "", frozenset())]
    while waiting:
        place, prefix, above = waiting.pop()
        real = os.path.realpath(place)
        if real in above or not os.path.isdir(place):  # a link to a folder that it lies in
            continue
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.is_dir():
                    waiting.append((entry.path, f"{prefix}{entry.name}/", above | {real}))
                elif os.path.splitext(entry.name)[1].lower() in suffixes and entry.name[0] != ".":
                    found.append(prefix + entry.name)
    return sorted(found)
