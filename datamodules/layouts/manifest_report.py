"""What was made of a table, in words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from datamodules.core.columns import Categories, Numbers
from datamodules.core.rows import Rows
from datamodules.layouts.schema import Schema
from datamodules.readers import Reader
from datamodules.readers.array import ArrayReader
from datamodules.readers.category import CategoryReader
from perceiver.types import TargetKind


def describe_rows(
    rows: Rows, schema: Schema, *, targets: TargetKind, group: str | None
) -> list[str]:
    """What was made of a table, a line each, for people."""
    lines, count = [], len(rows.ids)
    for name, column in rows.columns.items():
        sources = schema.columns[name]
        sources = [sources] if isinstance(sources, str) else sources
        if isinstance(column, Numbers | Categories) and len(sources) > 1:
            is_empty = np.isnan(column.values) if isinstance(column, Numbers) else column.codes < 0
            empty = is_empty.sum(axis=0).tolist()
            told = zip(sources, empty, strict=True)
            sources = [f"{source} ({n:,} empty)" if n else source for source, n in told]
        lacking = int(column.absent().sum())
        lines.append(
            f"{name} from {', '.join(sources)}" + (f", {lacking:,} rows lack it" if lacking else "")
        )
    lines.append(f"target {', '.join(schema.target)} ({targets}) of {count:,} rows")
    if schema.split:
        lines.append(f"splits from {schema.split}")
    elif rows.held_out:
        by = f" by {group}" if group else ""
        lines.append(f"held out{by}, at random (data.split_seed): {', '.join(rows.held_out)}")
    for name, why in schema.ignored.items():
        lines.append(f"ignored {name}: {why}")
    return lines + schema.hints


def describe_readers(readers: Mapping[str, Reader], schema: Schema) -> list[str]:
    """What was found of numbers and categories in the training rows, a line each."""
    lines = []
    for kind, reader in readers.items():
        names = schema.columns.get(kind, [])
        if isinstance(reader, ArrayReader):
            told = zip(names, reader.curves or (), strict=False)
            bent = [name for name, curve in told if curve is not None]
            if bent:
                lines.append(
                    f"array by quantiles, since skewed or with outliers: {', '.join(bent)}"
                )
        if isinstance(reader, CategoryReader):
            told = zip(names, reader.values, strict=False)
            counts = ", ".join(f"{name} {len(values):,}" for name, values in told)
            lines.append(f"category values that two training rows have: {counts}")
    return lines
