"""Sentences with a label, a line each: text TAB label, in train.tsv, dev.tsv and test.tsv."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.columns import Values
from datamodules.readers.text import BOM, decode_utf8
from datamodules.rows import Rows, RowsDataModule

_FILES = {"train": ("train.tsv",), "val": ("dev.tsv", "val.tsv"), "test": ("test.tsv",)}


class TextTSVDataModule(RowsDataModule):
    """Classification of texts.

    Args:
        root: folder of train.tsv, dev.tsv or val.tsv, and test.tsv; UTF-8, no quoting.
        classes: the labels, in the order of their indices; None = those in train.tsv, sorted.
        header: the first line of every file names the columns and is skipped.
        **common: options of `RowsDataModule`, which refuses unknown ones.
    """

    offers = ("text",)

    def __init__(
        self,
        *,
        root: str,
        classes: Sequence[str | int] | None = None,
        header: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.root = Path(root)
        self.classes = None if classes is None else [str(label) for label in classes]
        self.header = header

    def rows(self) -> Rows:
        """Raises FileNotFoundError without a file, ValueError naming file and line of a bad row."""
        texts, labels, ids, counts = list[str](), list[str](), list[str](), list[int]()
        for names in _FILES.values():
            path = self._find(names)
            found = read_rows(path, header=self.header, errors=self.given["text"]["errors"])
            name = path.name
            texts += [text for _, text, _ in found]
            labels += [label for _, _, label in found]
            ids += [f"{name}:{line}" for line, _, _ in found]
            counts.append(len(found))
        return Rows(
            {"text": Values(texts)},
            labels=labels,
            ids=ids,
            splits=np.repeat(list(_FILES), counts),
            classes=self.classes,
        )

    def _find(self, names: Sequence[str]) -> Path:
        for name in names:
            if (self.root / name).is_file():
                return self.root / name
        raise FileNotFoundError(
            f"{self.root / names[0]} does not exist: data.root={self.root} must hold train.tsv, "
            "dev.tsv or val.tsv, and test.tsv, each line a text, a tab and a label."
        )


def read_rows(path: Path, *, header: bool, errors: str) -> list[tuple[int, str, str]]:
    """The rows of a file as (line number from 1, text, label).

    Read as bytes and split at line feeds alone: text may hold any other character that Unicode
    counts as the end of a line. A byte order mark and carriage returns at line ends are dropped.

    Raises:
        ValueError: a row has not two columns, or is not UTF-8.
    """
    raw = path.read_bytes().removeprefix(BOM)
    try:  # all at once, which takes a third of the time
        text = decode_utf8(raw, where=str(path), errors=errors)
    except ValueError:
        for number, line in enumerate(raw.split(b"\n"), start=1):
            decode_utf8(line, where=f"{path}, line {number}", errors=errors)
        raise
    lines = text.replace("\r\n", "\n").removesuffix("\r").split("\n")
    if not lines[-1]:
        lines.pop()
    rows = [(number, *line.split("\t")) for number, line in enumerate(lines, start=1)][header:]
    for number, *columns in rows:
        if len(columns) != 2:
            raise ValueError(
                f"{path}, line {number} has {len(columns)} columns, expected 2: a text, a tab and "
                "a label."
            )
    return rows
