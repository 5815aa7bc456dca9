"""IMDb's Large Movie Review Dataset (Maas et al. 2011): a file a review, good or bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamodules.core.rows import Rows
from datamodules.layouts.folder import class_folder_rows
from datamodules.sets.download import PublishedDataModule, download, first_folder, unpack

_SITE = "https://ai.stanford.edu/~amaas/data/sentiment"
_ARCHIVE = f"{_SITE}/aclImdb_v1.tar.gz"
_CHECKSUM = "md5:7c2ac02c03563afcf9b574c7e56c153a"


class IMDbDataModule(PublishedDataModule):
    """25,000 reviews to train on and 25,000 for the test; those without a label are left out.

    Args:
        val_share: part of the training reviews for validation, equal for both classes.
        outside: allow symbolic links that lead out of the root.
        **published: options of `PublishedDataModule`, which refuses unknown ones.
    """

    available_modalities = ("text",)
    name, title = "imdb", "IMDb (aclImdb)"

    def __init__(self, *, val_share: float = 0.1, outside: bool = False, **published: Any) -> None:
        super().__init__(**published)
        self.val_share, self.outside = val_share, outside

    def found(self) -> Path | None:
        return first_folder(self.root, (".", "aclImdb"), holding="train/pos")

    def fetch(self) -> None:
        archive = download(_ARCHIVE, self.root / "aclImdb_v1.tar.gz", checksum=_CHECKSUM)
        unpack(archive, self.root)
        archive.unlink()

    def rows(self) -> Rows:
        return class_folder_rows(
            self.folder(),
            kind="text",
            modalities=["text"],
            classes=["neg", "pos"],
            inside=self.root,
            outside=self.outside,
        )
