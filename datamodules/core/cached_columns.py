"""Columns that are kept decoded: in memory, or in a folder that the next run finds."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
from filelock import FileLock
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from torch import Tensor

from datamodules.core.bad_examples import BadExamples
from datamodules.core.columns import Column
from datamodules.core.dataset import Source
from datamodules.core.decoding import decode
from datamodules.loading.decoded_store import DecodedStore, DecodedStoreWriter
from datamodules.loading.shared_cache import SharedTensorCache
from datamodules.readers import Cell, Reader
from perceiver.files import naming_full_disk, sync_folder, sync_tree

_EXAMPLES, _BYTES = 64, 2**22  # at most, that one thread decodes in a row
_AHEAD = 16  # parts that are decoded ahead of being put away


class _Decoder:
    """What decodes some cells of one modality of a source.

    Args:
        name: of the modality.
        reader: decodes them.
        ids: of all examples.
        bad_examples: where to report what cannot be decoded; None = raise.
    """

    def __init__(
        self, name: str, *, reader: Reader, ids: Sequence[str], bad_examples: BadExamples | None
    ) -> None:
        self.name, self.reader, self.ids, self.bad_examples = name, reader, ids, bad_examples

    def __call__(self, rows: Sequence[int], cells: Sequence[Cell]) -> list[Tensor | None]:
        return decode(
            cells,
            name=self.name,
            reader=self.reader,
            ids=[self.ids[row] for row in rows],
            bad_examples=self.bad_examples,
        )


class CachedColumn(Column):
    """A column whose cells are decoded when they are first asked for, and kept in memory.

    Worker processes share the memory: it does not matter which of them decoded a cell.

    Args:
        column: of cells.
        decoder: of the modality.
    """

    def __init__(self, column: Column, decoder: _Decoder) -> None:
        self.column, self.decoder = column, decoder
        self.kept = SharedTensorCache(len(column), decoder.reader)

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, index: int) -> Tensor | None:
        return self.cells([index])[0]

    def cells(self, indices: Sequence[int]) -> list[Tensor | None]:
        # In this order: what is not new is there, whatever other processes put there meanwhile.
        new, found = self.kept.new(indices), self.kept.get(indices)
        if new:
            rows = [indices[place] for place in new]
            decoded = self.decoder(rows, self.column.cells(rows))
            self.kept.put(rows, decoded)
            for place, tensor in zip(new, decoded, strict=True):
                found[place] = tensor
        return found

    def absent(self) -> np.ndarray:
        return self.column.absent()

    def blocks(self) -> np.ndarray | None:
        return self.column.blocks()

    def lengths(self, reader: Reader | None) -> np.ndarray | None:
        return self.column.lengths(reader)


class StoredColumn(Column):
    """A column that was decoded to a file.

    Args:
        store: the file.
        has_one_shape: whether all tensors have the same shape.
    """

    def __init__(self, store: DecodedStore, *, has_one_shape: bool) -> None:
        self.store, self.has_one_shape = store, has_one_shape

    def __len__(self) -> int:
        return len(self.store.held)

    def __getitem__(self, index: int) -> Tensor | None:
        return self.cells([index])[0]

    def cells(self, indices: Sequence[int]) -> list[Tensor | None]:
        return self.store.get(indices)

    def absent(self) -> np.ndarray:
        return ~self.store.held

    def lengths(self, reader: Reader | None) -> np.ndarray | None:
        return None if self.has_one_shape else self.store.sizes


def cache_in_memory(
    source: Source, *, readers: Mapping[str, Reader], bad_examples: BadExamples | None = None
) -> Source:
    """The source with its costly columns cached; what costs little to decode stays as it is.

    Args:
        source: of columns.
        readers: modality → what decodes its cells.
        bad_examples: where to report what cannot be decoded; None = raise.

    Raises:
        ValueError: there is not so much memory.
    """
    decoders = _decoders(source, readers, bad_examples)
    cached = {n: CachedColumn(source.columns[n], decoder) for n, decoder in decoders.items()}
    return Source(targets=source.targets, ids=source.ids, columns=source.columns | cached)


def cache_on_disk(
    source: Source,
    *,
    readers: Mapping[str, Reader],
    folder: Path,
    bad_examples: BadExamples | None = None,
) -> Source:
    """The source with its costly columns decoded to files, which are filled where they are missing.

    Args:
        source: of columns.
        readers: modality → what decodes its cells.
        folder: of the files, which are mapped into memory; a source of the same cells and options
            finds them again, in this run or another.
        bad_examples: where to report what cannot be decoded; None = raise.

    Raises:
        ValueError: a cell cannot be decoded, or too many cannot, or files are damaged.
    """
    decoders = _decoders(source, readers, bad_examples)
    columns = {name: source.columns[name] for name in decoders}
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / _fingerprint(columns, readers)
    with FileLock(place.with_suffix(".lock")):  # one process decodes, the others wait
        if not place.is_dir():
            for left in folder.glob(f"{place.name}-*"):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            part = Path(tempfile.mkdtemp(dir=folder, prefix=f"{place.name}-"))
            try:
                with naming_full_disk(place):
                    _fill(part, columns, decoders)
                    sync_tree(part)
                part.rename(place)
                sync_folder(folder)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
    stored = {}
    for name, column in columns.items():
        store = DecodedStore(place / f"{name}.arrow")
        # Broken cells are few, and are to be reported.
        lost = np.flatnonzero(~store.held & ~column.absent()).tolist()
        decoders[name](lost, column.cells(lost))
        one_shape = readers[name].field().has_one_shape
        stored[name] = StoredColumn(store, has_one_shape=one_shape)
    return Source(targets=source.targets, ids=source.ids, columns=source.columns | stored)


def decoded_bytes(sources: Sequence[Source], readers: Mapping[str, Reader]) -> int:
    """What the costly modalities take decoded, at most."""
    cell = sum(reader.decoded_bytes() for reader in readers.values() if reader.is_costly)
    return cell * sum(map(len, sources))


def _decoders(
    source: Source, readers: Mapping[str, Reader], bad_examples: BadExamples | None
) -> dict[str, _Decoder]:
    return {
        name: _Decoder(name, reader=reader, ids=source.ids, bad_examples=bad_examples)
        for name, reader in readers.items()
        if reader.is_costly
    }


def _fill(folder: Path, columns: Mapping[str, Column], decoders: Mapping[str, _Decoder]) -> None:
    """Decodes all cells to a file a modality."""
    count = len(next(iter(columns.values())))
    stores = {name: DecodedStoreWriter(folder / f"{name}.arrow") for name in columns}
    size = sum(decoder.reader.decoded_bytes() for decoder in decoders.values())
    step = max(1, min(_EXAMPLES, _BYTES // max(size, 1)))
    progress = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    print(f"Decoding {count:,} examples to {folder.parent} …")
    # Threads: decoders work outside Python's lock. Many rows each: small ones are quick.
    with ThreadPoolExecutor(os.cpu_count()) as pool, Progress(*progress, transient=True) as bar:
        task = bar.add_task("", total=count)
        for ahead in _parts(count, step * _AHEAD):
            for name, store in stores.items():
                cells = columns[name].cells(ahead)
                parts = _parts(len(ahead), step)
                rows = [ahead[part.start : part.stop] for part in parts]
                some = [cells[part.start : part.stop] for part in parts]
                for found in pool.map(decoders[name], rows, some):
                    store.put(found)
            bar.update(task, completed=ahead.stop)
    for store in stores.values():
        store.close()


def _fingerprint(columns: Mapping[str, Column], readers: Mapping[str, Reader]) -> str:
    """Of everything that the tensors depend on: options, names, sizes and times of files."""
    names = sorted(columns)
    options = {name: [type(readers[name]).__name__, asdict(readers[name])] for name in names}
    digest = hashlib.sha256(json.dumps(options).encode())
    for rows in _parts(len(columns[names[0]]), _EXAMPLES):
        for example in zip(*(columns[name].cells(rows) for name in names), strict=True):
            for cell in example:
                digest.update(_identity(cell))
    return digest.hexdigest()[:24]


def _identity(cell: Cell) -> bytes:
    if isinstance(cell, Path):
        try:
            status = cell.stat()
        except OSError:
            return f"{cell} lost".encode()
        return f"{cell.absolute()} {status.st_size} {status.st_mtime_ns}".encode()
    if isinstance(cell, str):
        cell = cell.encode()
    if isinstance(cell, bytes):
        return hashlib.sha256(cell).digest()
    return b"-" if cell is None else hashlib.sha256(np.asarray(cell).tobytes()).digest()


def _parts(count: int, step: int) -> list[range]:
    """0 … count in parts of so many."""
    return [range(first, min(first + step, count)) for first in range(0, count, step)]
