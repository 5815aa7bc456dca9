"""A table of the user's own, a row an example: CSV, TSV, JSON lines or Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datamodules.core.columns import Column, Files, Values
from datamodules.core.datamodule import plain
from datamodules.core.dataset import SPLITS, Source
from datamodules.core.labels import read_targets_option
from datamodules.core.rows import RowNumbers, Rows
from datamodules.core.rows_datamodule import RowsDataModule
from datamodules.layouts.column_kind import SPLIT_NAMES, names_files, target_kind
from datamodules.layouts.manifest_report import describe_readers, describe_rows
from datamodules.layouts.row_columns import row_column
from datamodules.layouts.schema import infer_schema
from datamodules.layouts.table import is_content, read_table, strings
from datamodules.layouts.target_columns import read_labels
from datamodules.readers import READERS, kind_of
from perceiver.types import TargetKind


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
            (`image_left`, `image_right`), but for `array`, `category` and `date`, whose columns
            together are one. None = inferred; where one is named, no other is.
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
            why = "".join(f"; {name}: {why}" for name, why in list(self.schema.ignored.items())[:9])
            raise ValueError(
                "no column looks like an image, sound, text, number, category or date: name one "
                f"with data.columns.image=COLUMN and the like, the table has "
                f"{', '.join(table.column_names)}{why}"
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
        self.notes += describe_rows(rows, self.schema, targets=self.targets, group=self.group)
        return rows

    def _fit_readers(self, train: Source) -> None:
        super()._fit_readers(train)
        self.notes += describe_readers(self.readers, self.schema)

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
        if READERS[kind].takes_columns:
            column, warnings = row_column(kind, table, source, ids=self._ids(table))
            self.schema.hints += warnings
            return column
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
        names, self.targets = self.schema.target, self.targets_option or self.targets
        if self.targets_option is None:
            columns = [table[name] for name in names]
            self.targets, self.separator = target_kind(columns, self.separator)
        options = {"separator": self.separator, "classes": self.classes, "ids": self._ids(table)}
        return read_labels(table, names, targets=self.targets, **options)

    def _ids(self, table: pa.Table) -> Sequence[str]:
        if self.schema.id:
            return _Ids(strings(table[self.schema.id]))
        files = [path.name for path in self.paths.values()]
        return RowNumbers(self._rows, starts=self._starts, files=files)


class _Ids(Sequence[str]):
    """The cells of a column."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.names = column.combine_chunks()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> str:
        return str(self.names[int(index)].as_py())
