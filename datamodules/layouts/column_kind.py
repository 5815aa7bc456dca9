"""What a column of a table holds, told from its name and a sample of its cells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datamodules.core.columns import Values
from datamodules.layouts.table import is_content, is_list, numbers
from datamodules.layouts.written import MAX_STRAYS, dates
from datamodules.readers import READERS
from perceiver.types import TargetKind

_SAMPLE = 512  # cells that are looked at
_TEXT = ("text", "caption", "sentence", "review", "question", "description", "title", "transcript")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_FEW = 20  # distinct values that a column of categories may well have, words or not
_MAX_CLASSES = 1000  # distinct numbers or names that are still taken for classes


def column_kind(name: str, column: pa.ChunkedArray) -> str:
    """The kind of modality that a column holds, or why it holds none."""
    if is_content(column.type):
        cells = [Values(pc.drop_null(column.slice(0, _SAMPLE)).slice(0, 8))]
        return next((k for k, kind in READERS.items() if _readable(kind, cells)), "unknown content")
    if is_list(column.type):
        return "lists"
    if pa.types.is_nested(column.type):
        return "nested values"
    if column.null_count == len(column):
        return "empty"
    distinct = pc.count_distinct(column).as_py()
    if _is_of_numbers(column, distinct):
        if distinct == 1:
            return "all the same"
        return "row numbers" if _counts(column) else "array"
    if dates(column) is not None:
        return "date" if distinct > 1 else "all the same"
    some = _sample(column)
    suffixes = [PurePath(cell).suffix.lower() if len(cell) < 4096 else "" for cell in some]
    for kind, options in READERS.items():
        if sum(suffix in options.suffixes for suffix in suffixes) >= 0.8 * len(suffixes):
            return kind
    count = len(column) - column.null_count
    is_wordy = np.mean([cell.count(" ") for cell in some]) >= 1.5
    if name.lower() in _TEXT or (is_wordy and distinct > min(_FEW, count / 20)):
        return "text"
    if distinct == 1 and not column.null_count:  # else whether it is empty says something
        return "all the same"
    return "category" if distinct <= count / 2 else f"names, {distinct:,} different"


def _is_of_numbers(column: pa.ChunkedArray, distinct: int) -> bool:
    """Whether all cells are numbers, or so many that the rest are slips of the pen."""
    found = numbers(column, max_strays=MAX_STRAYS)
    if found is None:
        return False
    strays = found.null_count - column.null_count
    # A few values such as 1, 2 and "3 or more" are categories.
    return strays <= 1 or distinct > _FEW


def names_files(kind: str, column: pa.ChunkedArray) -> bool:
    """Whether the cells are paths of files of a kind, rather than what is in them."""
    if kind != "text":
        return True
    some = _sample(column)
    found = [PurePath(cell).suffix.lower() in READERS[kind].suffixes for cell in some if cell]
    return bool(found) and float(np.mean(found)) >= 0.8


def target_kind(
    columns: Sequence[pa.ChunkedArray], separator: str | None
) -> tuple[TargetKind, str | None]:
    """What the cells of target columns are, and the separator of labels that share a cell."""
    if len(columns) > 1:
        values = [numbers(column) for column in columns]
        if any(value is None for value in values):
            raise ValueError("several target columns must be numbers: name one alone, or numbers")
        bits = all(set(pc.unique(pc.drop_null(v)).to_pylist()) <= {0.0, 1.0} for v in values)
        return (TargetKind.LABELS if bits else TargetKind.VALUES), None
    (column,) = columns
    if is_list(column.type):
        return TargetKind.LABELS, None
    found = numbers(column)
    if found is not None:
        known = pc.drop_null(found)
        distinct = pc.count_distinct(known).as_py()
        whole = pc.all(pc.equal(known, pc.round(known))).as_py()
        few = distinct <= 20 or (distinct <= _MAX_CLASSES and distinct <= len(known) / 20)
        return (TargetKind.CLASS if whole and few else TargetKind.VALUES), None
    if separator:
        return TargetKind.LABELS, separator
    some = _sample(column)
    if all(cell.startswith("[") and cell.endswith("]") for cell in some):
        return TargetKind.LABELS, None
    for mark in "|;":
        if np.mean([mark in cell for cell in some]) >= 0.05:
            return TargetKind.LABELS, mark
    return TargetKind.CLASS, None


def names_splits(column: pa.ChunkedArray) -> bool:
    if numbers(column) is not None or is_list(column.type) or is_content(column.type):
        return False
    return {str(v).strip().lower() for v in pc.unique(column).to_pylist() if v} <= set(SPLIT_NAMES)


def _counts(column: pa.ChunkedArray) -> bool:
    """Whether the numbers count the rows."""
    found = numbers(column, max_strays=MAX_STRAYS).to_numpy()
    return len(found) > 2 and not np.isnan(found).any() and bool((np.diff(found) == 1).all())


def _sample(column: pa.ChunkedArray) -> list[str]:
    """Up to `_SAMPLE` cells that are not null, evenly spread: of all where few are not null."""
    places = np.unique(np.linspace(0, len(column) - 1, _SAMPLE).astype(int))
    cells = [column[int(place)].as_py() for place in places]
    found = [str(cell) for cell in cells if cell is not None]
    return found or [str(cell) for cell in pc.drop_null(column)[:_SAMPLE].to_pylist()]


def _readable(kind: object, cells: Sequence[object]) -> bool:
    try:
        return kind.describe(cells) != ""
    except Exception:  # whatever a decoder thinks of bytes of another kind
        return False
