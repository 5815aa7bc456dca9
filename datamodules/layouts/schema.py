"""What the columns of a table are, told from their names and a sample of their cells."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datamodules.core.columns import Values
from datamodules.layouts.table import is_content, is_list, numbers
from datamodules.readers import READERS, kind_of
from perceiver.types import TargetKind

_SAMPLE = 512  # cells that are looked at
_TARGET = ("target", "label", "labels", "class", "category", "y", "tags", "tag", "classes")
_ID = ("id", "uid", "uuid", "guid", "key", "index", "example_id", "row_id", "sample_id", "")
_SPLIT = ("split", "subset", "partition", "set", "fold")
_GROUP = ("speaker", "patient", "subject", "person", "user", "group", "session", "speaker_id")
_GROUP += ("patient_id", "subject_id", "user_id", "client_id", "source", "recording")
_TEXT = ("text", "caption", "sentence", "review", "question", "description", "title", "transcript")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_MAX_CLASSES = 1000  # distinct numbers or names that are still taken for classes


@dataclass
class Schema:
    """What each column of a table is for.

    Args:
        columns: modality → the column or, for numbers, columns that it is read from.
        target: the columns of the target.
        split: the column that names the splits.
        id: the column that names the rows.
        ignored: the columns that are for nothing → why.
        hints: what a person might want to know, a line each.
    """

    columns: dict[str, str | list[str]]
    target: list[str]
    split: str | None = None
    id: str | None = None
    ignored: dict[str, str] = field(default_factory=dict)
    hints: list[str] = field(default_factory=list)


def infer_schema(
    table: pa.Table,
    *,
    kinds: Sequence[str],
    columns: Mapping[str, str | Sequence[str] | None],
    target: str | Sequence[str] | None,
    split: str | None,
    id: str | None,
    group: str | None,
) -> Schema:
    """What is named stays, the rest is guessed; where one modality's column is named, none of them.

    Args:
        table: of examples.
        kinds: of modalities that the model reads; columns of others are ignored.
        columns: modality → column or columns; None = not named.
        target: the column or columns to predict.
        split: names the splits.
        id: names the rows.
        group: keeps rows together.

    Raises:
        ValueError: a column is named that is not there, or none can be told to be the target.
    """
    named = {modality: names for modality, names in columns.items() if names}
    targets = [target] if isinstance(target, str) else list(target or ())
    schema = Schema(columns=_spread(named), target=targets, split=split, id=id)
    taken = [*targets, split, id, group]
    for names in named.values():
        taken += [names] if isinstance(names, str) else names
    for name in filter(None, taken):
        if name not in table.column_names:
            raise ValueError(
                f"the table has no column {name!r}, its columns are {', '.join(table.column_names)}"
            )
    rest = [name for name in table.column_names if name not in taken]
    if schema.split is None:
        schema.split = _take(rest, _SPLIT, lambda n: _names_splits(table[n]))
    if schema.id is None:
        schema.id = _take(rest, _ID, lambda n: True)
    if not targets:
        found = _take(rest, _TARGET, lambda n: True) or _last_with_few_values(table, rest)
        if found is None:
            raise ValueError(
                "no column looks like the target: name it with data.target=COLUMN, the table has "
                f"{', '.join(table.column_names)}"
            )
        rest = [name for name in rest if name != found]
        schema.target = [found]
    if named:
        schema.ignored |= dict.fromkeys(rest, "not named in data.columns")
        return schema
    by_kind: dict[str, list[str]] = {}
    for name in rest:
        kind = column_kind(name, table[name])
        if kind not in READERS:
            schema.ignored[name] = kind
            if group is None and name.lower() in _GROUP:
                schema.hints.append(
                    f"hint: data.group={name} would keep all rows of one {name} in one split"
                )
        elif kind not in kinds:
            schema.ignored[name] = f"{kind}, which the model does not read"
        else:
            by_kind.setdefault(kind, []).append(name)
    if "video" in by_kind and "audio" in kinds and "audio" not in by_kind:
        name = by_kind["video"][0]
        schema.hints.append(
            f"hint: data.columns.video={name} data.columns.audio={name} would hear films as well"
        )
    schema.columns = _spread({kind: by_kind[kind] for kind in READERS if kind in by_kind})
    return schema


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
    if numbers(column) is not None:
        return "row numbers" if _counts(column) else "array"
    some = _sample(column)
    suffixes = [PurePath(cell).suffix.lower() if len(cell) < 4096 else "" for cell in some]
    for kind, options in READERS.items():
        if sum(suffix in options.suffixes for suffix in suffixes) >= 0.8 * len(suffixes):
            return kind
    if name.lower() in _TEXT or np.mean([cell.count(" ") for cell in some]) >= 1.5:
        return "text"
    distinct = pc.count_distinct(column).as_py()
    return f"names, {distinct:,} different" if distinct > 1 else "all the same"


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


def _spread(columns: Mapping[str, str | Sequence[str]]) -> dict[str, str | list[str]]:
    """One modality a column, numbers together; several of a kind are told apart by their names."""
    spread: dict[str, str | list[str]] = {}
    for modality, names in columns.items():
        names = [names] if isinstance(names, str) else list(names)
        if kind_of(modality) == "array":
            spread[modality] = names
        elif len(names) == 1:
            spread[modality] = names[0]
        else:
            for name in names:
                short = re.sub(r"\W+", "_", name).strip("_") or "column"
                while f"{modality}_{short}" in spread:
                    short += "_"
                spread[f"{modality}_{short}"] = name
    return spread


def _take(rest: list[str], names: Sequence[str], fits: object) -> str | None:
    """Removes from `rest` the column that bears the first of the names and fits."""
    lower = {name.lower().strip(): name for name in reversed(rest)}
    for wanted in names:
        if wanted in lower and fits(lower[wanted]):
            rest.remove(lower[wanted])
            return lower[wanted]
    return None


def _names_splits(column: pa.ChunkedArray) -> bool:
    if numbers(column) is not None or is_list(column.type) or is_content(column.type):
        return False
    return {str(v).strip().lower() for v in pc.unique(column).to_pylist() if v} <= set(SPLIT_NAMES)


def _last_with_few_values(table: pa.Table, rest: Sequence[str]) -> str | None:
    """The last column of names or whole numbers that repeat, as most tables keep their target."""
    for name in reversed(rest):
        column = table[name]
        if is_content(column.type) or is_list(column.type):
            continue
        if column_kind(name, column).startswith("names,") or numbers(column) is not None:
            distinct = pc.count_distinct(column).as_py()
            if 1 < distinct <= max(20, len(column) // 20):
                kind, _ = target_kind([column], None)
                if kind != TargetKind.VALUES:
                    return name
    return None


def _counts(column: pa.ChunkedArray) -> bool:
    """Whether the numbers count the rows."""
    found = numbers(column).to_numpy()
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
