"""A Hugging Face dataset on the disk, as `save_to_disk` writes it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datamodules.core.inside import check_tree
from datamodules.layouts.column_kind import SPLIT_NAMES
from datamodules.layouts.manifest import ManifestDataModule
from datamodules.layouts.table import is_content, is_list
from datamodules.readers.json_text import load_json

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_LISTS = ("_data_files", "_indices_data_files")  # of a state.json


class HFDatasetDataModule(ManifestDataModule):
    """`load_from_disk`, with the columns of a table: see `ManifestDataModule`.

    Pictures and sound are decoded here, from the bytes that the dataset holds, not by `datasets`.
    Labels bear the names that the dataset's features give them, in its order.

    Args:
        **table: options of `ManifestDataModule`; `path` is the folder.
    """

    def __init__(self, **table: Any) -> None:
        if isinstance(table.get("path"), dict) or not table.get("path"):
            raise ValueError("data=hf_dataset needs data.path=FOLDER, as save_to_disk wrote it")
        super().__init__(**table)
        self.folder = self.paths[""]

    def inferred(self) -> dict[str, Any]:
        return super().inferred() | {"path": str(self.folder.absolute())}

    def _read(self) -> tuple[pa.Table, np.ndarray | None]:
        parts = _load(self.folder, outside=self.outside)
        if unknown := set(parts) - {"", *SPLIT_NAMES}:
            raise ValueError(
                f"{self.folder} has the splits {', '.join(sorted(unknown))}, expected some of "
                f"{', '.join(SPLIT_NAMES)}: rename or remove them."
            )
        self._names = _label_names(next(iter(parts.values())))
        tables = [_plain(part.with_format("arrow")[:], self._names) for part in parts.values()]
        self.paths = {name: self.folder / name for name in parts}  # what rows are named after
        self._starts = np.cumsum([0, *(table.num_rows for table in tables)])
        table = pa.concat_tables(tables)
        self._rows = np.arange(table.num_rows)
        if "" in parts:
            return table, None
        splits = [SPLIT_NAMES[name] for name in parts]
        return table, np.repeat(splits, [part.num_rows for part in tables])

    def _labels(self, table: pa.Table) -> tuple[Any, list[str] | None]:
        labels, classes = super()._labels(table)
        return labels, self.classes or self._names.get(self.schema.target[0], classes)


def _load(folder: Path, *, outside: bool) -> dict[str, Any]:
    """Split → dataset, or "" → one without splits."""
    if folder.is_dir():
        check_tree(folder, outside=outside)
        _check_names(folder)
    try:
        from datasets import DatasetDict, load_from_disk
    except ImportError as error:
        raise ValueError(
            "data=hf_dataset needs the package datasets: "
            "pip install 'perceiver-multimodal[datasets]'."
        ) from error
    try:
        # `datasets` would open URLs as well; a chain of them is one however it begins.
        if not folder.is_dir() or "::" in str(folder.absolute()):
            raise FileNotFoundError(f"{folder} is no folder")
        found = load_from_disk(str(folder.absolute()))
    except (LookupError, TypeError, AttributeError, pa.ArrowException) as error:
        raise ValueError(
            f"data.path={folder} is no whole dataset ({type(error).__name__}: {error}): write it "
            "anew with save_to_disk."
        ) from error
    except (FileNotFoundError, ValueError) as error:
        raise FileNotFoundError(
            f"data.path={folder} is not a dataset on the disk: write one there with "
            "datasets.load_dataset(NAME).save_to_disk(FOLDER)."
        ) from error
    return dict(found) if isinstance(found, DatasetDict) else {"": found}


def _check_names(folder: Path) -> None:
    """Refuse a dataset whose descriptions name what lies elsewhere.

    Raises:
        ValueError: naming the description.
    """
    for pattern, list_names in (("dataset_dict.json", _splits), ("**/state.json", _arrow_files)):
        for path in folder.glob(pattern):
            try:
                names = list_names(load_json(path.read_bytes()))
                strange = [n for n in names if not isinstance(n, str) or not _NAME.fullmatch(n)]
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise ValueError(f"{path} describes no dataset: {error}.") from error
            if strange:
                raise ValueError(f"{path} names {strange[0]!r:.200}, which is none of this folder.")


def _splits(told: Any) -> list[Any]:
    return list(told["splits"])


def _arrow_files(told: Any) -> list[Any]:
    return [one["filename"] for key in _LISTS for one in told.get(key) or []]


def _label_names(dataset: Any) -> dict[str, list[str]]:
    """Column of labels, or of lists of them → the names of their numbers."""
    features = {
        name: getattr(feature, "feature", feature) for name, feature in dataset.features.items()
    }
    return {n: f.names for n, f in features.items() if type(f).__name__ == "ClassLabel"}


def _plain(table: pa.Table, label_names: dict[str, list[str]]) -> pa.Table:
    """The table with labels by name, and with paths where files were saved as such alone."""
    for place, name in enumerate(table.column_names):
        column = table[name]
        if name in label_names:
            column = column.combine_chunks()
            names, labels = pa.array(label_names[name]), column
            if is_list(column.type):
                labels = column.flatten()
            # Hugging Face writes -1 where there is no label.
            labels = names.take(pc.if_else(pc.less(labels, 0), None, labels))
            if is_list(column.type):
                labels = pa.ListArray.from_arrays(column.offsets, labels)
            table = table.set_column(place, name, labels)
        elif is_content(column.type) and pa.types.is_struct(column.type):
            has_none = pc.struct_field(column, "bytes").null_count == len(column)
            if has_none:
                table = table.set_column(place, name, pc.struct_field(column, "path"))
    return table
