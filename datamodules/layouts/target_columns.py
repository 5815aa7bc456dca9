"""The columns of a table's target → labels by name, or values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datamodules.core.labels import sorted_labels
from datamodules.layouts.table import numbers, strings
from datamodules.layouts.written import first_stray
from datamodules.readers.json_text import load_json
from perceiver.types import TargetKind

_MAX_CLASSES = 20  # that any number of rows may have; more must come twice on average


def read_labels(
    table: pa.Table,
    names: Sequence[str],
    *,
    targets: TargetKind,
    separator: str | None,
    classes: Sequence[str] | None,
    ids: Sequence[str],
) -> tuple[Any, list[str] | None]:
    """The labels of all rows, as `Rows` takes them, and the classes where they are known.

    Args:
        table: of examples.
        names: of the columns of the target.
        targets: what they are.
        separator: between the labels of a cell, where it is no list.
        classes: as the user lists them; None = all that there are.
        ids: of the rows.

    Raises:
        ValueError: the columns make no such targets.
    """
    columns = [table[name] for name in names]
    if targets == TargetKind.VALUES:
        return number_columns(table, names, ids=ids), names
    if targets == TargetKind.LABELS and len(columns) > 1:
        labels = np.array(names)
        bits = number_columns(table, names, ids=ids) > 0
        return [labels[row].tolist() for row in bits], names
    if targets == TargetKind.LABELS:
        several = [_several(value, separator) for value in columns[0].to_pylist()]
        return several, classes or sorted_labels(set().union(*several))
    if len(columns) > 1:
        raise ValueError(
            f"data.target names {', '.join(names)}, which make no single class: "
            "name one column, or set data.targets=labels or values"
        )
    labels = _names(columns[0])
    distinct = len(set(labels))
    if classes is None and distinct > max(_MAX_CLASSES, 0.5 * len(labels)):
        raise ValueError(
            f"data.target={names[0]} has {distinct:,} different values in "
            f"{len(labels):,} rows, too many for classes: name another column, or set "
            "data.targets=labels with data.separator, or data.targets=values"
        )
    return labels, classes or sorted_labels(set(labels))


def number_columns(table: pa.Table, columns: Sequence[str], *, ids: Sequence[str]) -> np.ndarray:
    """(rows, columns) float64, NaN where a cell is empty.

    Args:
        table: of examples.
        columns: their names.
        ids: of the rows.

    Raises:
        ValueError: a cell is no number; the message names the row.
    """
    found = {name: numbers(table[name]) for name in columns}
    wrong = [name for name, values in found.items() if values is None]
    for name in wrong:
        some = numbers(table[name], max_strays=1.0)
        if some is not None:
            count, row = first_stray(table[name], some) or (0, 0)
            raise ValueError(
                f"{ids[row]}: the column {name} holds {table[name][row].as_py()!r:.60}, which is "
                f"no number, as {count:,} of {len(table):,} rows do: repair or empty it, or list "
                "what stands for nothing in data.missing_cells"
            )
    if wrong:
        raise ValueError(f"the column {', '.join(wrong)} is not of numbers")
    return np.stack([values.to_numpy() for values in found.values()], axis=1)


def _names(column: pa.ChunkedArray) -> list[str]:
    """Classes by name; 3.0, as spreadsheets may write whole numbers, is 3."""
    found, names = numbers(column), strings(column)
    if found is not None and pc.any(pc.match_substring(names, ".")).as_py():
        whole = pc.all(pc.equal(found, pc.round(found))).as_py()
        names = strings(found.cast(pa.int64())) if whole else names
    coded = names.combine_chunks().dictionary_encode()
    known = coded.dictionary.to_pylist()  # one string per class, not one per row
    return [known[index] for index in coded.indices.to_pylist()]


def _several(cell: Any, separator: str | None) -> list[str]:
    if isinstance(cell, list):
        return [str(label) for label in cell]
    text = str(cell).strip()
    if text.startswith("["):
        try:
            return [str(label) for label in load_json(text)]
        except ValueError:
            text = text.strip("[]")
    parts = text.split(separator) if separator else [text]
    return [part.strip() for part in parts if part.strip()]
