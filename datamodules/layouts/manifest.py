"""A table of the user's own, a row an example: CSV, TSV, JSON lines or Parquet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datamodules.core.columns import Column, Files, Numbers, Values
from datamodules.core.datamodule import plain
from datamodules.core.dataset import SPLITS
from datamodules.core.labels import read_targets_option, sorted_labels
from datamodules.core.rows import RowNumbers, Rows
from datamodules.core.rows_datamodule import RowsDataModule
from datamodules.layouts.schema import (
    SPLIT_NAMES,
    infer_schema,
    names_files,
    target_kind,
)
from datamodules.layouts.table import is_content, numbers, read_table, strings
from datamodules.readers import READERS, kind_of
from perceiver.types import TargetKind

_MAX_CLASSES = 20  # that any number of rows may have; more must come twice on average


@dataclass
class _Part:
    """Some rows of the table: what is not a modality, splits where they are known, modalities."""

    table: pa.Table
    splits: np.ndarray | None
    columns: dict[str, Column]


class ManifestDataModule(RowsDataModule):
    """Whatever the columns of a table say; what is not said is inferred from them.

    Args:
        path: the table, or split → table.
        root: the folder that paths in the table are relative to, and must stay in; None = the
            table's.
        kinds: of modalities that are looked for; columns of others are ignored.
        columns: modality → column, or list of columns: then each is a modality of its own
            (`image_left`, `image_right`), but for `array`, whose columns together are one. None =
            inferred; where one is named, no other is.
        target: column to predict, or columns of numbers or of 0 and 1; None = inferred.
        targets: "class", "labels" or "values"; None = inferred.
        separator: between the labels of a cell, where it is no JSON list; None = inferred.
        classes: the labels, in the order of their indices; None = those of the training rows.
        split: column of "train", "val" and "test"; None = inferred, or the splits are made.
        group: column whose equal values are never in two splits that are made: speaker, patient.
        id: column that names the rows; None = inferred.
        val_share: part of the rows for validation where neither file nor column gives any.
        test_share: likewise for the test.
        text_files: whether text columns name files; None = inferred.
        outside: allow paths that leave the root.
        missing_cells: what stands for nothing in CSV and TSV.
        quoted: whether quotation marks enclose cells; None = in CSV they do, in TSV they are text.
        **common: options of `RowsDataModule`, which refuses unknown ones.
    """

    available_modalities = tuple(READERS)

    def __init__(
        self,
        *,
        path: str | Mapping[str, str],
        root: str | None = None,
        kinds: Sequence[str] = tuple(READERS),
        columns: Mapping[str, str | Sequence[str] | None] | None = None,
        target: str | Sequence[str] | None = None,
        targets: str | None = None,
        separator: str | None = None,
        classes: Sequence[str | int] | None = None,
        split: str | None = None,
        group: str | None = None,
        id: str | None = None,
        val_share: float = 0.1,
        test_share: float = 0.2,
        text_files: bool | None = None,
        outside: bool = False,
        missing_cells: Sequence[str] = ("",),
        quoted: bool | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if not path:
            raise ValueError("data=manifest needs data.path=FILE (CSV, TSV, JSONL or Parquet)")
        self.paths = (
            {n: Path(p) for n, p in path.items() if p}
            if isinstance(path, Mapping)
            else {"": Path(path)}
        )
        if not {"", "train"} & set(self.paths):  # to evaluate on other files than were trained on
            self.required = tuple(self.paths)
        if unknown := set(self.paths) - {"", *SPLITS}:
            raise ValueError(f"data.path names {sorted(unknown)}, expected some of {list(SPLITS)}.")
        self.root = Path(root) if root else next(iter(self.paths.values())).parent
        self.targets_option = read_targets_option(targets)
        self.looked_for = list(kinds)
        self.columns, self.target, self.separator = dict(columns or {}), target, separator
        if unknown := {name for name in self.columns if kind_of(name) not in READERS}:
            raise ValueError(f"data.columns names {sorted(unknown)}, expected {list(READERS)}.")
        self.classes = None if classes is None else [str(name) for name in classes]
        self.split, self.group, self.id = split, group, id
        self.val_share, self.test_share = val_share, test_share
        self.text_files, self.outside = text_files, outside
        self.missing_cells, self.quoted = list(missing_cells), quoted

    def inferred(self) -> dict[str, Any]:
        found = super().inferred()
        paths = {split: str(path.absolute()) for split, path in self.paths.items()}
        return found | plain(
            {
                "path": paths.get("", paths),
                "columns": dict.fromkeys(READERS) | self.schema.columns,
                "target": self.schema.target,
                "targets": self.targets.option,
                "separator": self.separator,
                "split": self.schema.split,
                "id": self.schema.id,
                "classes": self.class_names if self.targets != TargetKind.VALUES else None,
            }
        )

    def rows(self) -> Rows:
        """Raises FileNotFoundError without a table, ValueError for one that makes no sense."""
        table, splits = self._read()
        kinds = [kind_of(name) for name in self.modalities or self.looked_for]
        self.schema = infer_schema(
            table,
            kinds=kinds,
            columns=self.columns,
            target=self.target,
            split=None if splits is not None else self.split,
            id=self.id,
            group=self.group,
        )
        if splits is not None:  # files say it
            self.schema.split = None
        found = {name: self._column(name, table) for name in self.schema.columns}
        if not found:
            raise ValueError(
                "no column looks like an image, sound, text or number: name one with "
                f"data.columns.image=COLUMN and the like, the table has "
                f"{', '.join(table.column_names)}"
            )
        self.modalities = self._choose(self.modalities or found)
        part = _Part(self._slim(table), splits, found)
        part = self._with_input(self._with_target(self._with_split(part)))
        table, splits, found = part.table, part.splits, part.columns
        labels, classes = self._labels(table)
        groups = None
        if self.group:
            names = enumerate(strings(table[self.group]).to_pylist())
            groups = [f"row {row}" if name is None else f"group {name}" for row, name in names]
        given = {"train"} if splits is None else set(splits)
        rows = Rows(
            found,
            labels=labels,
            ids=self._ids(table),
            splits=splits,
            held_out=[n for n in ("test", "val") if n not in given and "train" in given],
            groups=groups,
            classes=classes,
        )
        self.notes += self._describe(rows)
        return rows

    def _read(self) -> tuple[pa.Table, np.ndarray | None]:
        """The rows of all files, and the splits of the files where there are several."""
        errors = self.given.get("text", {}).get("errors", "raise")
        tables = {
            split: read_table(
                path, missing_cells=self.missing_cells, quoted=self.quoted, errors=errors
            )
            for split, path in self.paths.items()
        }
        self._starts = np.cumsum([0, *(table.num_rows for table in tables.values())])
        table = pa.concat_tables(tables.values(), promote_options="permissive")
        self._rows = np.arange(table.num_rows)
        if "" in tables:
            return table, None
        return table, np.repeat(list(tables), [part.num_rows for part in tables.values()])

    def _slim(self, table: pa.Table) -> pa.Table:
        """The table without what modalities alone are read from, which may be large."""
        schema = self.schema
        used = {*schema.target, schema.split, schema.id, self.group}
        return table.select([name for name in table.column_names if name in used])

    def _with_split(self, part: _Part) -> _Part:
        """Splits as the column gives them, where no files do."""
        if part.splits is not None or not self.schema.split:
            return part
        names = strings(part.table[self.schema.split]).to_pylist()
        known = [SPLIT_NAMES.get(str(name).strip().lower()) for name in names]
        if None in known:
            row = known.index(None)
            raise ValueError(
                f"{self._ids(part.table)[row]}: data.split={self.schema.split} says "
                f"{names[row]!r}, expected one of {', '.join(SPLIT_NAMES)}."
            )
        return replace(part, splits=np.array(known))

    def _with_target(self, part: _Part) -> _Part:
        """The rows that have a target."""
        lacking = np.zeros(len(self._rows), dtype=bool)
        for name in self.schema.target:
            lacking |= pc.is_null(part.table[name], nan_is_null=True).to_numpy()
        if lacking.all():
            raise ValueError(f"no row has a target in {', '.join(self.schema.target)}")
        return self._without(lacking, "have no target", part)

    def _with_input(self, part: _Part) -> _Part:
        """The rows that have something to read; all, where none has, which is reported later."""
        empty = np.all([part.columns[name].absent() for name in self.modalities], axis=0)
        return part if empty.all() else self._without(empty, "have no input at all", part)

    def _without(self, rows: np.ndarray, why: str, part: _Part) -> _Part:
        if not rows.any():
            return part
        first = self._ids(part.table)[int(rows.argmax())]
        self.notes.append(
            f"warning: {int(rows.sum()):,} rows {why} and are left out, the first is {first}"
        )
        kept = np.flatnonzero(~rows)
        self._rows = self._rows[kept]
        return _Part(
            part.table.take(pa.array(kept)),
            None if part.splits is None else part.splits[kept],
            {name: column.take(kept) for name, column in part.columns.items()},
        )

    def _column(self, name: str, table: pa.Table) -> Column:
        source, kind = self.schema.columns[name], kind_of(name)
        if kind == "array":
            return Numbers(self._numbers(table, source))
        column = table[source]
        if is_content(column.type):
            return Values(column)
        in_files = self.text_files if kind == "text" else True
        if in_files is None:
            in_files = names_files(kind, column)
        if in_files:
            return Files(strings(column), root=self.root, outside=self.outside)
        return Values(strings(column))

    def _labels(self, table: pa.Table) -> tuple[Any, list[str] | None]:
        """The labels of all rows, and the classes where they are known beforehand."""
        columns = [table[name] for name in self.schema.target]
        if self.targets_option is None:
            self.targets, self.separator = target_kind(columns, self.separator)
        else:
            self.targets = self.targets_option
        if self.targets == TargetKind.VALUES:
            return self._numbers(table, self.schema.target), self.schema.target
        if self.targets == TargetKind.LABELS and len(columns) > 1:
            names = np.array(self.schema.target)
            bits = self._numbers(table, self.schema.target) > 0
            return [names[row].tolist() for row in bits], self.schema.target
        if self.targets == TargetKind.LABELS:
            labels = [_several(value, self.separator) for value in columns[0].to_pylist()]
            return labels, self.classes or sorted_labels(set().union(*labels))
        if len(columns) > 1:
            raise ValueError(
                f"data.target names {', '.join(self.schema.target)}, which make no single class: "
                "name one column, or set data.targets=labels or values"
            )
        names = _names(columns[0])
        distinct = len(set(names))
        if self.classes is None and distinct > max(_MAX_CLASSES, 0.5 * len(names)):
            raise ValueError(
                f"data.target={self.schema.target[0]} has {distinct:,} different values in "
                f"{len(names):,} rows, too many for classes: name another column, or set "
                "data.targets=labels with data.separator, or data.targets=values"
            )
        return names, self.classes or sorted_labels(set(names))

    def _numbers(self, table: pa.Table, columns: Sequence[str]) -> np.ndarray:
        """(rows, columns) float64, NaN where a cell is empty."""
        found = {name: numbers(table[name]) for name in columns}
        wrong = [name for name, values in found.items() if values is None]
        if wrong:
            raise ValueError(f"the column {', '.join(wrong)} is not of numbers")
        return np.stack([values.to_numpy() for values in found.values()], axis=1)

    def _ids(self, table: pa.Table) -> Sequence[str]:
        if self.schema.id:
            return _Ids(strings(table[self.schema.id]))
        files = [path.name for path in self.paths.values()]
        return RowNumbers(self._rows, starts=self._starts, files=files)

    def _describe(self, rows: Rows) -> list[str]:
        """What was made of the table, a line each."""
        schema, lines = self.schema, []
        count = len(rows.ids)
        for name, column in rows.columns.items():
            sources = schema.columns[name]
            sources = [sources] if isinstance(sources, str) else sources
            if isinstance(column, Numbers) and len(sources) > 1:  # cells of a row that is not empty
                empty = np.isnan(column.values).sum(axis=0).tolist()
                told = zip(sources, empty, strict=True)
                sources = [f"{source} ({n:,} empty)" if n else source for source, n in told]
            lacking = int(column.absent().sum())
            lines.append(
                f"{name} from {', '.join(sources)}"
                + (f", {lacking:,} rows lack it" if lacking else "")
            )
        lines.append(f"target {', '.join(schema.target)} ({self.targets}) of {count:,} rows")
        if schema.split:
            lines.append(f"splits from {schema.split}")
        elif rows.held_out:
            by = f" by {self.group}" if self.group else ""
            lines.append(f"held out{by}, at random (data.split_seed): {', '.join(rows.held_out)}")
        for name, why in schema.ignored.items():
            lines.append(f"ignored {name}: {why}")
        return lines + schema.hints


def _names(column: pa.ChunkedArray) -> list[str]:
    """Classes by name; 3.0, as spreadsheets may write whole numbers, is 3."""
    found, names = numbers(column), strings(column)
    if found is not None and pc.any(pc.match_substring(names, ".")).as_py():
        whole = pc.all(pc.equal(found, pc.round(found))).as_py()
        names = strings(found.cast(pa.int64())) if whole else names
    coded = names.combine_chunks().dictionary_encode()
    known = coded.dictionary.to_pylist()  # one string a class, not one a row
    return [known[index] for index in coded.indices.to_pylist()]


def _several(cell: Any, separator: str | None) -> list[str]:
    if isinstance(cell, list):
        return [str(label) for label in cell]
    text = str(cell).strip()
    if text.startswith("["):
        try:
            return [str(label) for label in json.loads(text)]
        except json.JSONDecodeError:
            text = text.strip("[]")
    parts = text.split(separator) if separator else [text]
    return [part.strip() for part in parts if part.strip()]


class _Ids(Sequence[str]):
    """The cells of a column."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.names = column.combine_chunks()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> str:
        return str(self.names[int(index)].as_py())
