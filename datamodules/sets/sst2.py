"""SST-2 (Socher et al. 2013): sentences of film reviews, good or bad, as GLUE publishes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamodules.core.rows import Rows
from datamodules.layouts.text_tsv import read_rows, text_rows
from datamodules.sets.download import PublishedDataModule, download, first_folder, unpack

_ARCHIVE = "https://dl.fbaipublicfiles.com/glue/data/SST-2.zip"
_CHECKSUM = "md5:9f81648d4199384278b86e315dac217c"


class SST2DataModule(PublishedDataModule):
    """train.tsv, dev.tsv and test.tsv, a sentence, a tab and 0 or 1 a line, with a header or not.

    GLUE keeps the labels of its test.tsv to itself: then dev.tsv is the test, and validation is
    taken from train.tsv.

    Args:
        val_share: part of train.tsv for validation where the test has no labels.
        **published: options of `PublishedDataModule`, which refuses unknown ones.
    """

    available_modalities = ("text",)
    name, title = "sst2", "SST-2"

    def __init__(self, *, val_share: float = 0.1, **published: Any) -> None:
        super().__init__(**published)
        self.val_share = val_share

    def found(self) -> Path | None:
        return first_folder(self.root, (".", "SST-2"), holding="dev.tsv")

    def fetch(self) -> None:
        archive = download(_ARCHIVE, self.root / "SST-2.zip", checksum=_CHECKSUM)
        unpack(archive, self.root)
        archive.unlink()

    def rows(self) -> Rows:
        """Raises FileNotFoundError without a file, ValueError naming the line of a bad row."""
        folder = self.folder()
        test = folder / "test.tsv"
        has_labels = test.is_file() and not _first_line(test).startswith("index\t")
        files = {"train": "train.tsv", "test": "dev.tsv"}
        if has_labels:
            files = {"train": "train.tsv", "val": "dev.tsv", "test": "test.tsv"}
        errors = self.given["text"].get("errors", "raise")
        headers = [_first_line(folder / name) == "sentence\tlabel" for name in files.values()]
        return text_rows(
            [
                read_rows(folder / name, header=header, errors=errors)
                for name, header in zip(files.values(), headers, strict=True)
            ],
            names=list(files.values()),
            firsts=[1 + header for header in headers],
            splits=list(files),
            held_out=() if has_labels else ("val",),
            classes=["0", "1"],
        )


def _first_line(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: data.root must hold all of SST-2.")
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.readline().rstrip("\r\n")
