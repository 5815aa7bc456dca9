"""Columns of a table that are one modality together: numbers, categories, dates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datamodules.core.columns import Categories, Column, Numbers
from datamodules.layouts.table import numbers, strings
from datamodules.layouts.target_columns import number_columns
from datamodules.layouts.written import MAX_STRAYS, dates, first_stray


def row_column(
    kind: str, table: pa.Table, names: Sequence[str], *, ids: Sequence[str]
) -> tuple[Column, list[str]]:
    """The cells of a modality, and warnings for people, a line each.

    Args:
        kind: "array", "category" or "date".
        table: of examples.
        names: of the columns.
        ids: of the rows.

    Raises:
        ValueError: a column is not of that kind.
    """
    if kind == "category":
        coded = [_coded(table[name]) for name in names]
        return Categories(np.stack([c for c, _ in coded], axis=1), [n for _, n in coded]), []
    if kind == "date":
        return Numbers(np.stack([_dates(table[name], name) for name in names], axis=1)), []
    values, warnings = [], []
    for name in names:
        found = numbers(table[name], max_strays=MAX_STRAYS)
        if table[name].null_count == len(table):
            values.append(np.full(len(table), np.nan))
        elif found is None:
            values.append(number_columns(table, [name], ids=ids)[:, 0])
        else:
            values.append(found.to_numpy())
            if stray := first_stray(table[name], found):
                count, row = stray
                warnings.append(
                    f"warning: {name} is of numbers, but {count:,} of {len(table):,} rows hold "
                    "something else, which counts as missing; the first is "
                    f"{str(table[name][row].as_py())[:60]!r} of row {ids[row]}"
                )
    return Numbers(np.stack(values, axis=1)), warnings


def _coded(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """(rows,) places of the values, -1 where one is missing, and the values."""
    cells = pc.utf8_trim_whitespace(strings(column))
    cells = pc.if_else(pc.equal(cells, ""), None, cells)
    coded = cells.combine_chunks().dictionary_encode()
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return codes.astype(np.int32), coded.dictionary.to_pylist()


def _dates(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """(rows,) seconds since 1970, NaN where a cell is empty."""
    if column.null_count == len(column):
        return np.full(len(column), np.nan)
    found = dates(column)
    if found is None:
        example = pc.drop_null(column)[0].as_py()
        raise ValueError(
            f"the column {name} is not of dates of one form, such as 2024-02-29 or 29.02.2024 "
            f"13:05; its first cell is {str(example)[:60]!r}"
        )
    return found.to_numpy()
