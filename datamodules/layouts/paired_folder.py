"""Files of one name and several kinds, an example each: a.jpg with a.wav, seen and heard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamodules.core.columns import Files
from datamodules.core.dataset import SPLITS
from datamodules.core.rows import Rows
from datamodules.core.rows_datamodule import RowsDataModule
from datamodules.layouts.folder import class_folders, walk
from datamodules.readers import READERS


class PairedFolderDataModule(RowsDataModule):
    """Classification of what several files show together; the classes are names of folders.

    Either they lie beside each other, root/train/dog/7.jpg and root/train/dog/7.wav, or in a folder
    for each modality, root/image/train/dog/7.jpg and root/audio/train/dog/7.wav. Without train/ and
    test/ the splits are made. An example may lack a file: then it lacks the modality.

    Args:
        root: of the folders.
        val_share: part of the examples for validation where there is no val/.
        test_share: likewise for the test where there is no train/.
        outside: allow symbolic links that lead out of the root.
        **common: options of `RowsDataModule`, which refuses unknown ones.
    """

    available_modalities = ("image", "audio", "text")

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
        """Raises FileNotFoundError without such files, ValueError where two have one place."""
        apart = all((self.root / name).is_dir() for name in self.modalities)
        examples: dict[str, dict[str, str]] = {}
        for modality in self.modalities:
            below = f"{modality}/" if apart else ""
            for name in walk(self.root / below, READERS[modality].suffixes):
                files = examples.setdefault(name.rpartition(".")[0], {})
                if modality in files:
                    raise ValueError(
                        f"{self.root / files[modality]} and {self.root / below / name} are both "
                        f"the {modality} of one example: rename one."
                    )
                files[modality] = below + name
        # Where the root has none of these, they are made.
        given = sorted({name.split("/")[0] for name in examples} & set(SPLITS))
        depth = 1 if given else 0
        names = sorted(name for name in examples if name.count("/") > depth)
        if not names or (given and not {"train", "test"} <= set(given)):
            raise FileNotFoundError(
                f"data.root={self.root} must hold train/ and test/, or neither, with a folder for "
                f"each class of {' and '.join(self.modalities)} files of the same names; there are "
                f"{', '.join(class_folders(self.root)) or 'no folders'}."
            )
        files = {m: [examples[name].get(m) for name in names] for m in self.modalities}
        return Rows(
            {m: Files(found, root=self.root, outside=self.outside) for m, found in files.items()},
            labels=[name.split("/")[depth] for name in names],
            ids=names,
            splits=[name.split("/")[0] for name in names] if given else None,
            held_out=[split for split in ("test", "val") if split not in given],
        )
