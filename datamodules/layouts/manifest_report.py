"""What was made of a table, in words."""

from __future__ import annotations

import numpy as np

from datamodules.core.columns import Numbers
from datamodules.core.rows import Rows
from datamodules.layouts.schema import Schema
from perceiver.types import TargetKind


def describe_rows(
    rows: Rows, schema: Schema, *, targets: TargetKind, group: str | None
) -> list[str]:
    """What was made of a table, a line each, for people."""
    lines, count = [], len(rows.ids)
    for name, column in rows.columns.items():
        sources = schema.columns[name]
        sources = [sources] if isinstance(sources, str) else sources
        if isinstance(column, Numbers) and len(sources) > 1:  # cells of a row that is not empty
            empty = np.isnan(column.values).sum(axis=0).tolist()
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
