"""Sentences with a label, a line each: text TAB label, in train.tsv, dev.tsv and test.tsv."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from datamodules.core.columns import Values
from datamodules.core.inside import check_file
from datamodules.core.rows import RowNumbers, Rows
from datamodules.core.rows_datamodule import RowsDataModule
from datamodules.readers.text import BOM, decode_utf8

_FILES = {"train": ("train.tsv",), "val": ("dev.tsv", "val.tsv"), "test": ("test.tsv",)}


class TextTSVDataModule(RowsDataModule):
    """Classification of texts.

    Args:
        root: folder of train.tsv, dev.tsv or val.tsv, and test.tsv; UTF-8, no quoting.
        classes: the labels, in the order of their indices; None = those in train.tsv, sorted.
        header: the first line of every file names the columns and is skipped.
        outside: allow symbolic links that lead out of the root.
        **common: options of `RowsDataModule`, which refuses unknown ones.
    """

    available_modalities = ("text",)

    def __init__(
        self,
        *,
        root: str,
        classes: Sequence[str | int] | None = None,
        header: bool = False,
        outside: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.root, self.outside = Path(root), outside
        self.classes = None if classes is None else [str(label) for label in classes]
        self.header = header

    def rows(self) -> Rows:
        """Raises FileNotFoundError without a file, ValueError naming file and line of a bad row."""
        paths = [self._find(names) for names in _FILES.values()]
        parts = [
            read_rows(path, header=self.header, errors=self.given["text"]["errors"])
            for path in paths
        ]
        for path, (texts, _) in zip(paths, parts, strict=True):
            if not len(texts):
                raise ValueError(f"{path} has no rows: add a line a text, a tab and a label.")
        return text_rows(
            parts,
            names=[path.name for path in paths],
            firsts=[1 + self.header] * len(paths),
            splits=list(_FILES),
            classes=self.classes,
        )

    def _find(self, names: Sequence[str]) -> Path:
        for name in names:
            if (self.root / name).exists():
                check_file(self.root / name, inside=self.root, outside=self.outside)
                return self.root / name
        raise FileNotFoundError(
            f"{self.root / names[0]} does not exist: data.root={self.root} must hold train.tsv, "
            "dev.tsv or val.tsv, and test.tsv, each line a text, a tab and a label."
        )


def text_rows(
    parts: Sequence[tuple[pa.Array, pa.Array]],
    *,
    names: Sequence[str],
    firsts: Sequence[int],
    splits: Sequence[str],
    **options: Any,
) -> Rows:
    """The rows of several files.

    Args:
        parts: the texts and labels of each, as `read_rows` gives them.
        names: of the files.
        firsts: number of the line that each begins with.
        splits: that each is of.
        **options: of `Rows`.
    """
    texts, labels = zip(*parts, strict=True)
    counts = list(map(len, texts))
    return Rows(
        {"text": Values(pa.concat_arrays(texts))},
        labels=pa.concat_arrays(labels).to_pylist(),
        ids=RowNumbers(
            np.arange(sum(counts)), starts=np.cumsum([0, *counts]), files=names, firsts=firsts
        ),
        splits=np.repeat(splits, counts),
        **options,
    )


def read_rows(path: Path, *, header: bool, errors: str) -> tuple[pa.Array, pa.Array]:
    """The texts and the labels of a file, a row each.

    Split at tabs and line feeds alone: text may hold any other character that Unicode counts as the
    end of a line. A byte order mark and carriage returns at line ends are dropped.

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
    if errors == "replace":
        raw = text.encode("utf-8")
    if b"\r" in raw:
        raw = raw.replace(b"\r\n", b"\n").removesuffix(b"\r")
    if header:
        raw = raw.partition(b"\n")[2]
    if raw and not raw.endswith(b"\n"):
        raw += b"\n"
    content = np.frombuffer(raw, np.uint8)
    ends = np.flatnonzero((content == ord("\t")) | (content == ord("\n")))
    columns = np.diff(np.flatnonzero(content[ends] == ord("\n")), prepend=-1)
    if len(wrong := np.flatnonzero(columns != 2)):
        raise ValueError(
            f"{path}, line {wrong[0] + 1 + header} has {columns[wrong[0]]} columns, expected 2: "
            "a text, a tab and a label."
        )
    # Without what ends them, cells lie one after another, as Arrow keeps them.
    starts = np.concatenate([[0], ends - np.arange(len(ends))])
    cells = pa.LargeStringArray.from_buffers(
        len(ends), pa.py_buffer(starts), pa.py_buffer(np.delete(content, ends))
    )
    return tuple(cells.take(pa.array(np.arange(n, len(cells), 2))) for n in range(2))
