"""Keeping the examples of a source decoded: in memory, or in a folder that the next run finds."""

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
from typing import Any

import numpy as np
from filelock import FileLock
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from torch import Tensor

from datamodules.core.bad_examples import BrokenExamples
from datamodules.core.dataset import Source, decode
from datamodules.loading.decoded_store import Memory, Store, StoreWriter
from datamodules.readers import Cell, Kind
from perceiver.files import naming_full_disk, sync_folder, sync_tree

_EXAMPLES, _BYTES = 64, 2**22  # at most, that one thread decodes in a row
_AHEAD = 16  # parts that are decoded ahead of being put away


class CachedSource(Source):
    """A source of cells that decodes each once; what costs little to decode stays as it is.

    In memory an example is kept when it is first asked for, in whichever process: workers share
    the memory. A folder is filled when the source is made.

    Args:
        source: gives the cells.
        kinds: modality → what decodes them.
        broken: where to report what cannot be decoded; None = raise.
        folder: keep tensors in files there, mapped into memory; a source of the same cells and
            options finds them again, in this run or another. None = in memory.

    Raises:
        ValueError: a cell cannot be decoded, or too many cannot.
    """

    def __init__(
        self,
        source: Source,
        *,
        kinds: Mapping[str, Kind],
        broken: BrokenExamples | None = None,
        folder: Path | None = None,
    ) -> None:
        super().__init__(targets=source.targets, ids=source.ids)
        self.source = source
        self.kinds = {name: kind for name, kind in kinds.items() if kind.is_costly}
        self.missing = {name: source.absent(name) for name in kinds}
        self.broken = broken
        self.is_filled = folder is not None
        self.kept: Mapping[str, Memory | Store]
        if folder is None:
            self.kept = {name: Memory(len(self), kind) for name, kind in self.kinds.items()}
        else:
            self.kept = stores = self._find(folder)
            self.missing |= {name: ~store.held for name, store in stores.items()}

    def _find(self, folder: Path) -> dict[str, Store]:
        """The stores of these very cells, filled before where they are not there."""
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / self._fingerprint()
        with FileLock(place.with_suffix(".lock")):  # one process decodes, the others wait
            if not place.is_dir():
                for left in folder.glob(f"{place.name}-*"):  # by a process that was killed
                    shutil.rmtree(left, ignore_errors=True)
                part = Path(tempfile.mkdtemp(dir=folder, prefix=f"{place.name}-"))
                try:
                    with naming_full_disk(place):
                        self._fill(part)
                        sync_tree(part)
                    part.rename(place)
                    sync_folder(folder)
                except BaseException:
                    shutil.rmtree(part, ignore_errors=True)
                    raise
        stores = {name: Store(place / name) for name in self.kinds}
        for name, store in stores.items():  # broken ones are few, and are to be reported
            lost = np.flatnonzero(~store.held & ~self.missing[name]).tolist()
            self._decode(name, lost, self.source.cells(lost)[name])
        return stores

    def _fingerprint(self) -> str:
        """Of everything that the tensors depend on: options, names, sizes and times of files."""
        options = {name: [type(k).__name__, asdict(k)] for name, k in sorted(self.kinds.items())}
        digest = hashlib.sha256(json.dumps(options).encode())
        for rows in _parts(len(self), _EXAMPLES):
            cells = self.source.cells(rows)
            for example in zip(*(cells[name] for name in sorted(self.kinds)), strict=True):
                for cell in example:
                    digest.update(_identity(cell))
        return digest.hexdigest()[:24]

    def _fill(self, folder: Path) -> None:
        count = len(self)
        stores = {
            name: StoreWriter(folder / name, count, has_one_shape=kind.field().has_one_shape)
            for name, kind in self.kinds.items()
        }
        size = sum(kind.decoded_bytes() for kind in self.kinds.values())
        step = max(1, min(_EXAMPLES, _BYTES // max(size, 1)))
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        print(f"Decoding {count:,} examples to {folder.parent} …")
        # Threads: decoders work outside Python's lock. Many rows each: small ones are quick.
        with ThreadPoolExecutor(os.cpu_count()) as pool, Progress(*columns, transient=True) as bar:
            task = bar.add_task("", total=count)
            for ahead in _parts(count, step * _AHEAD):
                cells = self.source.cells(ahead)
                for name, store in stores.items():
                    parts = [
                        (name, ahead[p.start : p.stop], cells[name][p.start : p.stop])
                        for p in _parts(len(ahead), step)
                    ]
                    for found in pool.map(self._decode, *zip(*parts, strict=True)):
                        store.put(found)
                bar.update(task, completed=ahead.stop)
        for store in stores.values():
            store.close()

    def _decode(self, name: str, rows: Sequence[int], cells: Sequence[Cell]) -> list[Tensor | None]:
        ids = [self.ids[row] for row in rows]
        return decode(cells, name=name, kind=self.kinds[name], ids=ids, broken=self.broken)

    def cells(self, indices: Sequence[int]) -> dict[str, list[Cell]]:
        # In this order: what is not new is there, whatever other processes put there meanwhile.
        new = {n: s.new(indices) for n, s in self.kept.items() if isinstance(s, Memory)}
        kept: dict[str, list[Any]] = {name: s.get(indices) for name, s in self.kept.items()}
        rows: Sequence[int] = range(len(indices))
        if len(kept) == len(self.missing):  # nothing else is asked for
            rows = sorted(set().union(*new.values()))
        cells = self.source.cells([indices[row] for row in rows]) if rows else {}
        for name, places in new.items():
            if places:
                given = dict(zip(rows, cells[name], strict=True))
                here = [indices[row] for row in places]
                found = self._decode(name, here, [given[row] for row in places])
                self.kept[name].put(here, found)
                for row, tensor in zip(places, found, strict=True):
                    kept[name][row] = tensor
        return cells | kept

    def absent(self, modality: str) -> np.ndarray:
        return self.missing[modality]

    def blocks(self) -> np.ndarray | None:
        return None if self.is_filled else self.source.blocks()

    def lengths(self, modality: str, kind: Kind | None) -> np.ndarray | None:
        store = self.kept.get(modality)
        return store.lengths() if isinstance(store, Store) else self.source.lengths(modality, kind)


def _parts(count: int, step: int) -> list[range]:
    """0 … count in parts of so many."""
    return [range(first, min(first + step, count)) for first in range(0, count, step)]


def decoded_bytes(sources: Sequence[Source], kinds: Mapping[str, Kind]) -> int:
    """What the costly modalities take decoded, at most."""
    cell = sum(kind.decoded_bytes() for kind in kinds.values() if kind.is_costly)
    return cell * sum(map(len, sources))


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
