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

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from datamodules.broken import BrokenExamples
from datamodules.readers import Cell, Kind
from datamodules.splits import Source, decode

_EXAMPLES, _BYTES = 64, 2**22  # at most, that one thread decodes in a row
_AHEAD = 16  # parts that are decoded ahead of being put away


class CachedSource(Source):
    """A source of cells, decoded when it is made; what costs little to decode stays as it is.

    A modality is one tensor, not one an example: worker processes then share the memory.

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
        self.decoded: dict[str, Store] = {}
        if folder is None:
            self._fill(None)
        else:
            self._find(folder)
        self.missing |= {name: ~store.held for name, store in self.decoded.items()}

    def _find(self, folder: Path) -> None:
        """Opens the stores of these very cells, after filling them where they are not there."""
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / self._fingerprint()
        with FileLock(place.with_suffix(".lock")):  # one process decodes, the others wait
            if not place.is_dir():
                part = Path(tempfile.mkdtemp(dir=folder, prefix=f"{place.name}-"))
                try:
                    self._fill(part)
                    part.rename(place)
                except BaseException:
                    shutil.rmtree(part, ignore_errors=True)
                    raise
        self.decoded = {name: Store.open(place / name) for name in self.kinds}
        for name, store in self.decoded.items():  # broken ones are few, and are to be reported
            lost = np.flatnonzero(~store.held & ~self.missing[name]).tolist()
            self._decode(name, lost, self.source.cells(lost)[name])

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

    def _fill(self, folder: Path | None) -> None:
        count = len(self)
        stores = {
            name: Store(count, kind.field().has_one_shape, folder and folder / name)
            for name, kind in self.kinds.items()
        }
        size = sum(kind.decoded_bytes() for kind in self.kinds.values())
        step = max(1, min(_EXAMPLES, _BYTES // max(size, 1)))
        # Threads: decoders work outside Python's lock. Many rows each: small ones are quick.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for ahead in _parts(count, step * _AHEAD):
                cells = self.source.cells(ahead)
                for name, store in stores.items():
                    parts = [
                        (name, ahead[p.start : p.stop], cells[name][p.start : p.stop])
                        for p in _parts(len(ahead), step)
                    ]
                    for found in pool.map(self._decode, *zip(*parts, strict=True)):
                        store.put(found)
        for store in stores.values():
            store.close()
        self.decoded = stores

    def _decode(self, name: str, rows: Sequence[int], cells: Sequence[Cell]) -> list[Tensor | None]:
        ids = [self.ids[row] for row in rows]
        return decode(cells, name=name, kind=self.kinds[name], ids=ids, broken=self.broken)

    def cells(self, indices: Sequence[int]) -> dict[str, list[Cell]]:
        cells = self.source.cells(indices) if len(self.decoded) < len(self.missing) else {}
        kept = {name: [s.get(index) for index in indices] for name, s in self.decoded.items()}
        return cells | kept

    def absent(self, modality: str) -> np.ndarray:
        return self.missing[modality]

    def lengths(self, modality: str, kind: Kind | None) -> np.ndarray | None:
        store = self.decoded.get(modality)
        if store is None:
            return self.source.lengths(modality, kind)
        return None if store.has_one_shape else np.diff(store.starts)


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


class Store:
    """Tensors end to end, of one type; any of them may be missing.

    Args:
        count: how many.
        has_one_shape: whether all have the same.
        folder: to write them to; None = keep them in memory.
    """

    def __init__(self, count: int, has_one_shape: bool, folder: Path | None = None) -> None:
        self.has_one_shape = has_one_shape
        self.held = np.zeros(count, dtype=bool)
        self.starts = np.zeros(count + 1, dtype=np.int64)
        self.shapes: np.ndarray | None = None  # (count, axes)
        self.values: Tensor | None = None
        self.folder = folder
        self._count, self._parts = 0, list[Tensor]()
        if folder is not None:
            folder.mkdir()
            self._file = (folder / "values.bin").open("wb")

    def put(self, tensors: Sequence[Tensor | None]) -> None:
        """Adds the next ones."""
        first, self._count = self._count, self._count + len(tensors)
        rows = slice(first, self._count)
        self.held[rows] = [tensor is not None for tensor in tensors]
        sizes = [0 if tensor is None else tensor.numel() for tensor in tensors]
        self.starts[first + 1 : self._count + 1] = self.starts[first] + np.cumsum(sizes)
        here = [tensor for tensor in tensors if tensor is not None]
        if not here:
            return
        if self.shapes is None:
            self.shapes = np.zeros((len(self.held), here[0].ndim), dtype=np.int64)
            self.dtype = here[0].dtype
            if self.has_one_shape and self.folder is None:  # never twice in memory
                self.values = torch.empty(len(self.held) * here[0].numel(), dtype=self.dtype)
        self.shapes[rows][self.held[rows]] = [tensor.shape for tensor in here]
        joined = torch.cat([tensor.flatten() for tensor in here])
        if self.folder is not None:
            self._file.write(joined.numpy())
        elif self.values is not None:
            self.values[self.starts[first] : self.starts[self._count]] = joined
        else:
            self._parts.append(joined)

    def close(self) -> None:
        """No more will come."""
        if self.folder is not None:
            self._file.close()
            if self.shapes is not None:
                np.save(self.folder / "shapes.npy", self.shapes)
                np.save(self.folder / "held.npy", self.held)
                np.save(self.folder / "starts.npy", self.starts)
            told = {
                "count": len(self.held),
                "has_one_shape": self.has_one_shape,
                "dtype": None if self.shapes is None else str(self.dtype).removeprefix("torch."),
            }
            (self.folder / "store.json").write_text(json.dumps(told), encoding="utf-8")
        elif self._parts:
            self.values, self._parts = torch.cat(self._parts), []

    @classmethod
    def open(cls, folder: Path) -> Store:
        """What was closed there; its values are read from the disk as they are asked for."""
        told = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        store = cls(told["count"], told["has_one_shape"])
        if told["dtype"] is not None:
            store.shapes, store.held, store.starts = (
                np.load(folder / f"{name}.npy", allow_pickle=False)
                for name in ("shapes", "held", "starts")
            )
            path, size = folder / "values.bin", int(store.starts[-1])
            dtype = getattr(torch, told["dtype"])
            store.values = torch.from_file(str(path), shared=False, size=size, dtype=dtype)
        return store

    def get(self, index: int) -> Tensor | None:
        """The tensor, which shares the store's memory; None where there is none."""
        if self.values is None or self.shapes is None or not self.held[index]:
            return None
        values = self.values[self.starts[index] : self.starts[index + 1]]
        return values if self.shapes.shape[1] == 1 else values.view(self.shapes[index].tolist())
