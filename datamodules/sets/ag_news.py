"""AG News (Zhang et al. 2015): the title and first words of news of four classes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from datamodules.core.columns import Values
from datamodules.core.rows import Rows
from datamodules.readers.text import decode_utf8
from datamodules.sets.download import PublishedDataModule, download, first_folder

_FILES = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv/"
_CHECKSUMS = {
    "train.csv": "md5:b1a00f826fdfbd249f79597b59e1dc12",
    "test.csv": "md5:d52ea96a97a2d943681189a97654912d",
}
_CLASSES = ["World", "Sports", "Business", "Sci/Tech"]


class AGNewsDataModule(PublishedDataModule):
    """120,000 news to train on and 7,600 for the test; a text is title, space, description.

    Args:
        val_share: part of the training news for validation, equal for every class.
        **published: options of `PublishedDataModule`, which refuses unknown ones.
    """

    available_modalities = ("text",)
    name, title = "ag_news", "AG News"

    def __init__(self, *, val_share: float = 0.1, **published: Any) -> None:
        super().__init__(**published)
        self.val_share = val_share

    def found(self) -> Path | None:
        return first_folder(self.root, (".", "ag_news_csv"), holding="test.csv")

    def fetch(self) -> None:
        for name, checksum in _CHECKSUMS.items():
            download(_FILES + name, self.root / name, checksum=checksum)

    def rows(self) -> Rows:
        """Raises ValueError naming the row that is not class, title, description."""
        folder = self.folder()
        rows = [(f"{name}:{n}", *row) for name in _CHECKSUMS for n, *row in _read(folder / name)]
        ids, labels, texts = zip(*rows, strict=True) if rows else ((), (), ())
        return Rows(
            {"text": Values(list(texts))},
            labels=labels,
            ids=ids,
            splits=[id.partition(".")[0] for id in ids],
            held_out=("val",),
            classes=_CLASSES,
        )


def _read(path: Path) -> list[tuple[int, str, str]]:
    """Number from 1, class and text of each row of "class","title","description"."""
    text = decode_utf8(path.read_bytes(), where=str(path)).removeprefix("\ufeff")
    found = []
    for number, row in enumerate(csv.reader(text.splitlines(keepends=True)), start=1):
        if len(row) != 3 or row[0] not in ("1", "2", "3", "4"):
            raise ValueError(
                f'{path}, row {number} is not "class","title","description" with a class of 1 to '
                f"{len(_CLASSES)}: repair it, or fetch the file anew."
            )
        found.append((number, _CLASSES[int(row[0]) - 1], f"{row[1]} {row[2]}"))
    return found
