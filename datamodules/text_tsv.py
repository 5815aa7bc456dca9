"""Sentences with a label, a line each: text TAB label, in train.tsv, dev.tsv and test.tsv."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from datamodules.base import MultimodalDataModule
from datamodules.readers.text import TextOptions, decode_utf8
from datamodules.splits import Source

_FILES = {"train": ("train.tsv",), "val": ("dev.tsv", "val.tsv"), "test": ("test.tsv",)}
_BOM = b"\xef\xbb\xbf"


class TextSource(Source):
    """Texts of one split; an empty one is absent."""

    def __init__(
        self, texts: list[str], *, targets: list[int], ids: list[str], options: TextOptions
    ) -> None:
        super().__init__(targets=targets, ids=ids)
        self.texts = texts
        self.options = options

    def read(self, index: int, rng: np.random.Generator) -> dict[str, Tensor | None]:
        return {"text": self.options.encode(self.texts[index])}

    def absent(self, modality: str) -> np.ndarray:
        return np.array([not text for text in self.texts])


class TextTSVDataModule(MultimodalDataModule):
    """Classification of texts.

    Args:
        root: folder of train.tsv, dev.tsv or val.tsv, and test.tsv; UTF-8, no quoting.
        classes: the labels, in the order of their indices; None = those in train.tsv, sorted.
        header: the first line of every file names the columns and is skipped.
        **common: options of `MultimodalDataModule`, which refuses unknown ones.
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

    def build(self) -> tuple[list[str], dict[str, Source]]:
        """Raises FileNotFoundError without a file, ValueError naming file and line of a bad row."""
        paths = {split: self._find(names) for split, names in _FILES.items()}
        rows = {
            split: read_rows(path, header=self.header, errors=self.text.errors)
            for split, path in paths.items()
        }
        classes = self.classes or _sorted_labels({label for _, _, label in rows["train"]})
        indices = {label: index for index, label in enumerate(classes)}
        sources = {}
        for split, path in paths.items():
            for line, _, label in rows[split]:
                if label not in indices:
                    raise ValueError(
                        f"{path}, line {line}: unknown label {label!r}, the classes are {classes}: "
                        "repair the label or list it in data.classes."
                    )
            sources[split] = TextSource(
                [text for _, text, _ in rows[split]],
                targets=[indices[label] for _, _, label in rows[split]],
                ids=[f"{path.name}:{line}" for line, _, _ in rows[split]],
                options=self.text,
            )
        return classes, sources

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
    lines = path.read_bytes().removeprefix(_BOM).split(b"\n")
    if not lines[-1]:
        lines.pop()
    rows = []
    for number, raw in enumerate(lines, start=1):
        if header and number == 1:
            continue
        where = f"{path}, line {number}"
        columns = decode_utf8(raw.removesuffix(b"\r"), where=where, errors=errors).split("\t")
        if len(columns) != 2:
            raise ValueError(
                f"{where} has {len(columns)} columns, expected 2: a text, a tab and a label."
            )
        rows.append((number, *columns))
    return rows


def _sorted_labels(labels: set[str]) -> list[str]:
    """Integers by value ("10" after "9"), anything else by letter."""
    numeric = all(label.removeprefix("-").isdecimal() for label in labels)
    return sorted(labels, key=int if numeric else str)
