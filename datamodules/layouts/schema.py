"""What each column of a table is for, told from their names and a sample of their cells."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from datamodules.layouts.column_kind import column_kind, names_splits, target_kind
from datamodules.layouts.table import is_content, is_list, numbers, strings
from datamodules.readers import READERS, kind_of
from perceiver.types import TargetKind

_TARGET = ("target", "label", "labels", "class", "category", "y", "tags", "tag", "classes")
_ID = ("id", "uid", "uuid", "guid", "key", "index", "example_id", "row_id", "sample_id", "")
_SPLIT = ("split", "subset", "partition", "set", "fold")
_GROUP = ("speaker", "patient", "subject", "person", "user", "group", "session", "speaker_id")
_FEW = 20  # rows; what two columns share in fewer may be chance
_GROUP += ("patient_id", "subject_id", "user_id", "client_id", "source", "recording")


@dataclass
class Schema:
    """What each column of a table is for.

    Args:
        columns: modality → the column or, for numbers, categories and dates, columns that it is
            read from.
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
        schema.split = _take(rest, _SPLIT, lambda n: names_splits(table[n]))
    if schema.id is None:
        schema.id = _take(rest, _ID, lambda n: True)
    if not targets:
        schema.target = [_infer_target(table, rest)]
    if named:
        schema.ignored |= dict.fromkeys(rest, "not named in data.columns")
    else:
        _infer_modalities(
            schema,
            table.select(rest),
            kinds,
            targets=[table[name] for name in schema.target],
            has_group=group is not None,
        )
    return schema


def _infer_target(table: pa.Table, rest: list[str]) -> str:
    """Removes from `rest` the column that looks like the target."""
    found = _take(rest, _TARGET, lambda n: True) or _last_with_few_values(table, rest)
    if found is None:
        raise ValueError(
            "no column looks like the target: name it with data.target=COLUMN, the table has "
            f"{', '.join(table.column_names)}"
        )
    rest[:] = [name for name in rest if name != found]
    return found


def _infer_modalities(
    schema: Schema,
    table: pa.Table,
    kinds: Sequence[str],
    *,
    targets: Sequence[pa.ChunkedArray],
    has_group: bool,
) -> None:
    """Fills in what the columns of a table are read as, and why others are not."""
    by_kind: dict[str, list[str]] = {}
    for name in table.column_names:
        kind = column_kind(name, table[name])
        is_group = name.lower() in _GROUP
        if kind == "category" and is_group:
            kind = f"whom or what a row is of; data.columns.category=[{name}] would read it"
        if kind not in READERS:
            schema.ignored[name] = kind
            if not has_group and is_group:
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
    for names in (by_kind.get(kind, []) for kind in ("array", "category")):
        for name in list(names):
            match _told_by(table[name], targets):
                case "same":
                    names.remove(name)
                    schema.ignored[name] = "the same as the target"
                case "one to one":
                    schema.hints.append(
                        f"warning: {name} says the target of every row; if it is another form of "
                        "it, read the other columns alone: name them in data.columns"
                    )
    by_kind = {kind: names for kind, names in by_kind.items() if names}
    schema.columns = _spread({kind: by_kind[kind] for kind in READERS if kind in by_kind})


def _told_by(column: pa.ChunkedArray, targets: Sequence[pa.ChunkedArray]) -> str | None:
    """Whether a column gives away a lone target: "same", "one to one" or None."""
    if len(targets) != 1 or is_list(targets[0].type):
        return None
    pairs = pa.table({"column": strings(column), "target": strings(targets[0])}).drop_null()
    if len(pairs) < _FEW:
        return None
    if pc.all(pc.equal(pairs["column"], pairs["target"])).as_py():
        return "same"
    counts = [pc.count_distinct(pairs[name]).as_py() for name in pairs.column_names]
    if counts[0] != counts[1] or not 1 < counts[0] <= len(pairs) / 2:
        return None
    distinct = len(pairs.group_by(pairs.column_names).aggregate([]))
    return "one to one" if distinct == counts[0] else None


def _spread(columns: Mapping[str, str | Sequence[str]]) -> dict[str, str | list[str]]:
    """One modality per column, numbers and such together; several of a kind are named apart."""
    spread: dict[str, str | list[str]] = {}
    for modality, names in columns.items():
        names = [names] if isinstance(names, str) else list(names)
        if READERS[kind_of(modality)].takes_columns:
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


def _last_with_few_values(table: pa.Table, rest: Sequence[str]) -> str | None:
    """The last column of names or whole numbers that repeat, as most tables keep their target."""
    for name in reversed(rest):
        column = table[name]
        if is_content(column.type) or is_list(column.type):
            continue
        kind = column_kind(name, column)
        if kind == "category" or kind.startswith("names,") or numbers(column) is not None:
            distinct = pc.count_distinct(column).as_py()
            if 1 < distinct <= max(20, len(column) // 20):
                targets, _ = target_kind([column], None)
                if targets != TargetKind.VALUES:
                    return name
    return None
