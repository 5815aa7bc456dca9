"""ESC-50 (Piczak 2015): five-second recordings of fifty environmental sounds, in five folds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamodules.core.columns import Files
from datamodules.core.rows import Rows
from datamodules.layouts.table import read_table
from datamodules.sets.download import PublishedDataModule, download, first_folder, unpack

_COMMIT = "33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6"
_ARCHIVE = f"https://github.com/karolpiczak/ESC-50/archive/{_COMMIT}.zip"
# Its publisher gives none: this one was recorded, independently, by several who fetched it.
_CHECKSUM = "sha256:661183a6f53ef04f12c9bd618fed0ddc1713280d6c94a5a5431e844ba6f6a21f"
_TABLE = "meta/esc50.csv"
_FOLDS = 5


class ESC50DataModule(PublishedDataModule):
    """2,000 recordings; one fold is the test, one validation, and the other three are trained on.

    Args:
        fold: of the test, 1 to 5: `-m data.fold=1,2,3,4,5` is the published cross-validation.
        val_fold: of validation; None = the one after `fold`.
        outside: allow symbolic links that lead out of the root.
        **published: options of `PublishedDataModule`, which refuses unknown ones.
    """

    available_modalities = ("audio",)
    name, title = "esc50", "ESC-50"

    def __init__(
        self,
        *,
        fold: int = 1,
        val_fold: int | None = None,
        outside: bool = False,
        **published: Any,
    ) -> None:
        super().__init__(**published)
        self.outside = outside
        self.fold, self.val_fold = fold, val_fold or fold % _FOLDS + 1
        if not {self.fold, self.val_fold} <= set(range(1, _FOLDS + 1)) or fold == val_fold:
            raise ValueError(
                f"data.fold={fold} and data.val_fold={val_fold}: expected two of 1 to {_FOLDS}."
            )

    def found(self) -> Path | None:
        places = (".", f"ESC-50-{_COMMIT}", "ESC-50-master", "ESC-50")
        return first_folder(self.root, places, holding=_TABLE)

    def fetch(self) -> None:
        archive = download(_ARCHIVE, self.root / "esc50.zip", checksum=_CHECKSUM)
        unpack(archive, self.root)
        archive.unlink()
        print(
            f"The archive of commit {_COMMIT[:7]} is the one that others fetched ({_CHECKSUM}): "
            "its publisher gives no checksum."
        )

    def rows(self) -> Rows:
        """Raises FileNotFoundError without the table, ValueError for one of other columns."""
        folder = self.folder()
        table = read_table(folder / _TABLE)
        if lacking := {"filename", "fold", "category"} - set(table.column_names):
            raise ValueError(f"{folder / _TABLE} has no column {', '.join(sorted(lacking))}.")
        files = [f"audio/{name}" for name in table["filename"].to_pylist()]
        splits = {str(self.fold): "test", str(self.val_fold): "val"}
        return Rows(
            {"audio": Files(files, root=folder, inside=self.root, outside=self.outside)},
            labels=table["category"].to_pylist(),
            ids=files,
            splits=[splits.get(fold, "train") for fold in table["fold"].to_pylist()],
        )
