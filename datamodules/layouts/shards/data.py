"""Training from shards: `python train.py data=shards data.root=DIR_OR_URL`."""

from __future__ import annotations

import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.core.columns import Column
from datamodules.core.datamodule import plain
from datamodules.core.dataset import SPLITS, Source
from datamodules.core.labels import read_targets_option
from datamodules.core.rows import Rows
from datamodules.core.rows_datamodule import RowsDataModule
from datamodules.layouts.shards.layout import DESCRIPTION, Description, Index, read_file
from datamodules.layouts.shards.reader import Place, ShardReader
from datamodules.readers import READERS, Cell, Reader, kind_of
from datamodules.readers.text import BYTES, WORDS
from perceiver.types import TargetKind

TENSOR = "tensor.npy"  # suffix of cells that are decoded; numbers of a table are .npy alone


class Members:
    """The cells of one split.

    Args:
        index: where they lie.
        reader: of the split's shards.
        modalities: those that will be read.
    """

    def __init__(self, index: Index, reader: ShardReader, modalities: Sequence[str]) -> None:
        self.index, self.reader, self.modalities = index, reader, list(modalities)
        self._asked: list[int] = []

    def place(self, name: str, row: int) -> Place:
        index = self.index
        return int(index.shard[row]), int(index.start[name][row]), int(index.size[name][row])

    def fetch(self, rows: list[int]) -> None:
        if rows == self._asked:  # each modality's column asks for the whole batch
            return
        self._asked = rows
        here = [(n, row) for row in rows for n in self.modalities if self.index.start[n][row] >= 0]
        self.reader.fetch([self.place(name, row) for name, row in here])

    def cell(self, name: str, row: int) -> Cell:
        if self.index.start[name][row] < 0:
            return None
        content = self.reader.read(self.place(name, row))
        suffix = self.index.suffix[name][row].as_py()
        if suffix not in ("npy", TENSOR):
            return content
        array = load_array(content, where=f"{name} of {self.index.ids[row]}")
        return torch.from_numpy(array) if suffix == TENSOR else array


class MemberColumn(Column):
    """One modality of some examples of a split."""

    def __init__(self, members: Members, name: str, rows: np.ndarray) -> None:
        self.members, self.name, self.rows = members, name, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Cell:
        return self.members.cell(self.name, int(self.rows[index]))

    def absent(self) -> np.ndarray:
        return self.members.index.start[self.name][self.rows] < 0

    def take(self, indices: np.ndarray) -> MemberColumn:
        return MemberColumn(self.members, self.name, self.rows[indices])

    def cells(self, indices: Sequence[int]) -> list[Cell]:
        rows = self.rows[list(indices)].tolist()
        self.members.fetch(rows)
        return [self.members.cell(self.name, row) for row in rows]

    def blocks(self) -> np.ndarray:
        return self.members.index.shard[self.rows]

    def lengths(self, reader: Reader | None) -> np.ndarray | None:
        lengths = self.members.index.length[self.name][self.rows]
        return lengths.astype(float) if lengths.any() else None


class Joined(Column):
    """Columns one behind the other: the splits of a data set."""

    def __init__(self, parts: Sequence[MemberColumn]) -> None:
        self.parts = list(parts)
        self.starts = np.cumsum([0, *map(len, self.parts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> Cell:
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.parts[part][index - int(self.starts[part])]

    def absent(self) -> np.ndarray:
        return np.concatenate([part.absent() for part in self.parts])

    def take(self, indices: np.ndarray) -> Column:
        """Some, in their order; those of one split alone are a column of that split."""
        if np.any(np.diff(indices) < 0):
            raise ValueError("Cells of several splits are taken in their order alone.")
        bounds = np.searchsorted(indices, self.starts)
        taken = [
            part.take(indices[first:last] - start)
            for part, start, first, last in zip(
                self.parts, self.starts, bounds, bounds[1:], strict=False
            )
        ]
        some = [part for part in taken if len(part)] or taken[:1]
        return some[0] if len(some) == 1 else Joined(some)


class ShardsDataModule(RowsDataModule):
    """Examples that `python pack.py` wrote, from a folder or a URL.

    Args:
        root: the folder, or a URL (s3://…, gs://…, https://…): see `open_root`.
        targets: "class", "labels" or "values"; None = as the shards say.
        shuffle_window: examples that are shuffled among each other, of shards in random order, so
            that each process reads few shards at a time; 0 = shuffle all.
        local: folder to keep shards of a URL in; None = ask the URL for each example.
        local_gib: how much they may take there, in GiB.
        outside: allow symbolic links that lead out of the root.
        **common: options of `RowsDataModule`, which refuses unknown ones.
    """

    available_modalities = tuple(READERS)

    def __init__(
        self,
        *,
        root: str,
        targets: str | None = None,
        shuffle_window: int = 0,
        local: str | None = None,
        local_gib: float = 10.0,
        outside: bool = False,
        **common: Any,
    ) -> None:
        # What is None is as the shards say, once they are looked at.
        for kind in set(READERS) & set(common):
            options = common[kind] or {}
            common[kind] = {name: value for name, value in options.items() if value is not None}
        super().__init__(**common)
        if not root:
            raise ValueError("data=shards needs data.root=DIR_OR_URL, which holds dataset.json")
        if shuffle_window < 0:
            raise ValueError(f"data.shuffle_window={shuffle_window}, expected 0 or more examples.")
        self.root, self.targets_option = str(root), read_targets_option(targets)
        self.shuffle_window, self.outside = shuffle_window, outside
        self.local, self.local_gib = local, local_gib

    def inferred(self) -> dict[str, Any]:
        """Every option as the shards say, so that a checkpoint needs no shards to predict."""
        found = super().inferred()
        kinds = {name: plain(asdict(reader)) for name, reader in self.readers.items()}
        return found | kinds | {"targets": self.targets.option}

    def rows(self) -> Rows:
        """Raises FileNotFoundError without shards, ValueError for some that make no sense."""
        where = f"{self.root}/{DESCRIPTION}"
        told = Description.from_json(self._read(DESCRIPTION), where=where)
        self.description = told
        self.targets = TargetKind(told.targets)
        if self.targets_option not in (None, self.targets):
            raise ValueError(
                f"data.targets={self.targets_option.option}, but the targets of {self.root} are "
                f"{self.targets.option}: leave the option out or pack other shards."
            )
        lost = [name for name in self.modalities if name not in told.modalities]
        if lost:
            raise ValueError(
                f"The shards in {self.root} have {', '.join(told.modalities)}, not "
                f"{', '.join(lost)}: choose 'modality@model.adapters=[…]' or pack others."
            )
        self.modalities = self._choose(self.modalities or told.modalities)
        raw = {split: self._read(f"{split}.parquet") for split in SPLITS}
        members = {split: self._members(split, raw[split], self._near(raw)) for split in SPLITS}
        counts = [len(part.index.ids) for part in members.values()]
        columns = {
            name: Joined(
                [MemberColumn(m, name, np.arange(len(m.index.ids))) for m in members.values()]
            )
            for name in self.modalities
        }
        return Rows(
            columns,
            labels=self._labels([part.index.targets for part in members.values()]),
            ids=[id for part in members.values() for id in part.index.ids.to_pylist()],
            splits=np.repeat(SPLITS, counts),
            classes=told.classes,
        )

    def _read(self, name: str) -> bytes:
        return read_file(self.root, name, outside=self.outside)

    def _near(self, indices: Mapping[str, bytes]) -> str | None:
        """The folder that shards are kept in; another data set's may have the same names."""
        if not self.local:
            return None
        content = (self.root.encode(), self.description.to_json(), *indices.values())
        return str(Path(self.local) / sha256(b"".join(content)).hexdigest()[:16])

    def _members(self, split: str, raw: bytes, local: str | None) -> Members:
        where = f"{self.root}/{split}.parquet"
        index = Index.from_parquet(raw, self.description.modalities, where=where)
        shards = self.description.shards.get(split, [])
        fits = ((index.shard >= 0) & (index.shard < len(shards))).all()
        if not fits or any((size < 0).any() for size in index.size.values()):
            raise ValueError(f"{where} does not fit {DESCRIPTION}: pack them again.")
        options = {"local_gib": self.local_gib, "outside": self.outside}
        reader = ShardReader(self.root, shards, local=local, **options)
        return Members(index, reader, self.modalities)

    def _labels(self, targets: list[torch.Tensor]) -> Any:
        joined, classes = torch.cat(targets).numpy(), self.description.classes
        if self.targets == TargetKind.VALUES:
            return joined
        if joined.min(initial=0) < 0 or (joined.max(initial=0) >= max(len(classes), 2)):
            raise ValueError(
                f"{self.root} has targets that are none of its {len(classes)} classes."
            )
        if self.targets == TargetKind.LABELS:
            names = np.array(classes)
            return [names[row > 0].tolist() for row in joined]
        return [classes[index] for index in joined]

    def _fit_readers(self, train: Source) -> None:
        """The options that are left open are as the shards say; cells are not looked at."""
        for name in {kind_of(modality) for modality in self.modalities}:
            told = self.description.kinds.get(name, {})
            given = self.given.get(name, {})
            if told.get("tokenizer") not in (None, BYTES, WORDS) and "tokenizer" not in given:
                raise ValueError(
                    f"The {name} in {self.root} was read with the tokenizer "
                    f"{told['tokenizer']!r}: name your copy with data.text.tokenizer=FILE."
                )
            try:
                self.readers[name] = READERS[name](**told | given)
            except TypeError as error:
                raise ValueError(f"{self.root}/{DESCRIPTION}, {name}: {error}.") from error


def load_array(content: bytes, *, where: str) -> np.ndarray:
    """The array of an .npy file, which holds numbers alone.

    Raises:
        ValueError: it does not, or is cut short.
    """
    file = BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0}.get(version)
        if read is None:
            raise ValueError(f"version {version} of the format")
        shape, is_fortran, dtype = read(file)
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError) as error:
        raise ValueError(f"The {where} is no array: {error}.") from error
    size = len(content) - file.tell()
    if dtype.hasobject or is_fortran or int(np.prod(shape, dtype=object)) * dtype.itemsize != size:
        raise ValueError(f"The {where} is no plain array of {size} bytes: pack it again.")
    return np.frombuffer(content, dtype, offset=file.tell()).reshape(shape).copy()
