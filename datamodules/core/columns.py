"""The columns of a data set's rows: files, values, numbers, categories, tensors; a cell per row."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path, PureWindowsPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from datamodules.core.inside import HINT
from datamodules.readers import Cell, Reader

_AT_ONCE = 2**12  # cells that are Python objects while all are gone through


class Column(Sequence[Cell]):
    """Base of columns: a sequence of cells that can be thinned out and asked what is absent.

    Several million cells must cost little: values stay in Arrow or NumPy arrays, which worker
    processes share, and become Python objects one by one.
    """

    def absent(self) -> np.ndarray:
        """(n,) bool, True where the cell is None."""
        return np.zeros(len(self), dtype=bool)

    def take(self, indices: np.ndarray) -> Column:
        """The cells at (k,) integer positions."""
        raise NotImplementedError

    def cells(self, indices: Sequence[int]) -> list[Cell]:
        """Some cells, for what is better asked for at once."""
        return [self[index] for index in indices]

    def blocks(self) -> np.ndarray | None:
        """(n,) numbers; cells that share one lie together."""
        return None

    def lengths(self, reader: Reader | None) -> np.ndarray | None:
        """(n,) how long about the cells' tensors are; None = one is as long as another."""
        first = next((cell for cell in self if cell is not None), None)
        if reader is None or first is None or reader.length_of(first) is None:
            return None
        with ThreadPoolExecutor() as pool:  # headers are read outside Python's lock
            return np.fromiter(pool.map(reader.length_of, self), float, len(self))


class Values(Column):
    """What lies in the table itself: texts, or the bytes of files. An empty text is absent.

    Nothing is copied: of a table on the disk that is mapped into memory, a cell is read when it is
    asked for.

    Args:
        values: n strings, byte strings or structs {bytes, path} (as Hugging Face stores files),
            null where absent; any sequence, or an Arrow array.
        rows: (k,) positions of the cells in `values`; None = all, in order.
    """

    def __init__(
        self,
        values: Sequence[object] | pa.Array | pa.ChunkedArray,
        *,
        rows: np.ndarray | None = None,
    ) -> None:
        if not isinstance(values, pa.ChunkedArray):
            values = pa.chunked_array(
                [values if isinstance(values, pa.Array) else pa.array(values)]
            )
        if pa.types.is_struct(values.type):
            values = pc.struct_field(values, "bytes")
        if pa.types.is_null(values.type):
            values = values.cast(pa.string())
        self.values, self.rows = values, rows

    def __len__(self) -> int:
        return len(self.values if self.rows is None else self.rows)

    def __getitem__(self, index: int) -> Cell:
        row = int(index if self.rows is None else self.rows[index])
        return self.values[row].as_py() or None

    def cells(self, indices: Sequence[int]) -> list[Cell]:
        if self.values.num_chunks != 1:  # Arrow would join them all, each time
            return super().cells(indices)
        rows = np.asarray(indices, dtype=np.int64)
        rows = rows if self.rows is None else self.rows[rows]
        return [cell or None for cell in self.values.chunk(0).take(pa.array(rows)).to_pylist()]

    def __iter__(self) -> Iterator[Cell]:
        if self.rows is not None:
            yield from super().__iter__()
            return
        for batch in pa.table([self.values], ["cells"]).to_batches(max_chunksize=_AT_ONCE):
            for cell in batch[0].to_pylist():
                yield cell or None

    def array(self) -> pa.ChunkedArray:
        """The cells in order; a copy of them where they are some."""
        if self.rows is None:
            return self.values
        # Arrow's own `take` would first join all chunks.
        chunks = self.values.chunks
        starts = np.cumsum([0, *map(len, chunks)])
        chunk = np.searchsorted(starts, self.rows, side="right") - 1
        runs = np.split(np.arange(len(chunk)), np.flatnonzero(np.diff(chunk)) + 1)
        parts = [(int(chunk[run[0]]), self.rows[run]) for run in runs if len(run)]
        taken = [chunks[place].take(pa.array(rows - starts[place])) for place, rows in parts]
        return pa.chunked_array(taken, self.values.type)

    def num_bytes(self) -> np.ndarray:
        """(n,) size of each cell, 0 where absent."""
        sizes = pc.fill_null(pc.binary_length(self.values), 0).to_numpy()
        return sizes if self.rows is None else sizes[self.rows]

    def absent(self) -> np.ndarray:
        return self.num_bytes() == 0

    def take(self, indices: np.ndarray) -> Values:
        return Values(self.values, rows=indices if self.rows is None else self.rows[indices])


class Files(Column):
    """Files named by their paths.

    Args:
        paths: n paths, relative to `root` or absolute; null or empty where absent.
        root: a folder.
        inside: the folder that none of them may leave; None = the root.
        outside: allow paths out of it: absolute ones, `..`, and through symbolic links.

    Raises:
        ValueError: when a cell is read whose path leaves the root (`problems` finds them before).
    """

    def __init__(
        self,
        paths: Sequence[str | None] | pa.Array | pa.ChunkedArray | Values,
        *,
        root: Path,
        inside: Path | None = None,
        outside: bool = False,
    ) -> None:
        self.paths = paths if isinstance(paths, Values) else Values(paths)
        self.root, self.inside, self.outside = Path(root), Path(inside or root), outside
        self._root, self._real_inside = str(root), os.path.realpath(self.inside)
        self._below = os.path.join(self._real_inside, "")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Path | None:
        return self._path(self.paths[index])

    def cells(self, indices: Sequence[int]) -> list[Cell]:
        return [self._path(name) for name in self.paths.cells(indices)]

    def _path(self, name: Cell) -> Path | None:
        if name is None:
            return None
        path = os.path.join(self._root, str(name))
        if not self.outside:
            refusal = self._refusal(str(name), path, is_link=os.path.islink(path))
            if refusal:
                raise ValueError(refusal)
        return Path(path)

    def name(self, index: int) -> str | None:
        """The path as it is written."""
        return self.paths[index]

    def absent(self) -> np.ndarray:
        return self.paths.absent()

    def problems(self) -> dict[int, str]:
        """Position → what is wrong, where a file does not exist or must not be read.

        Folders are listed, each once: a million files take about a second.
        """
        found: dict[int, str] = {}
        folders: dict[str, dict[str, bool]] = {}
        for index, name in enumerate(self.paths):
            if not name:
                continue
            folder, _, file = name.rpartition("/")
            if folder not in folders:
                path = os.path.join(self._root, name)
                refused = self._refusal(name, path, is_link=False)
                folders[folder] = {} if refused else _listing(os.path.dirname(path))
            is_link = folders[folder].get(file)
            if is_link is False and ".." not in name:
                continue  # a plain file in a folder that may be read
            path = os.path.join(self._root, name)
            if refusal := self._refusal(name, path, is_link=bool(is_link)):
                found[index] = refusal
            elif is_link is not False and not os.path.isfile(path):
                found[index] = f"There is no file {self.root / name}: replace or remove it."
        return found

    def take(self, indices: np.ndarray) -> Files:
        return self._of(self.paths.take(indices))

    def without(self, indices: np.ndarray) -> Files:
        """The column with the cells at (k,) positions emptied."""
        names = self.paths.array()
        keep = np.ones(len(names), dtype=bool)
        keep[indices] = False
        kept = pc.if_else(pa.array(keep), names, pa.scalar(None, names.type))
        return self._of(kept)

    def _of(self, paths: pa.ChunkedArray | Values) -> Files:
        return Files(paths, root=self.root, inside=self.inside, outside=self.outside)

    def _refusal(self, name: str, path: str, *, is_link: bool) -> str | None:
        """Why a file must not be read, or None."""
        if self.outside:
            return None
        climbs = ".." in name and ".." in PureWindowsPath(name).parts
        if not climbs:
            real = os.path.dirname(os.path.realpath(path)) if is_link else None
            real = real or _real_folder(os.path.dirname(path))
            if real == self._real_inside or real.startswith(self._below):
                return None
        if climbs:
            return f"The path {name!r} climbs out of folders with '..': {HINT}."
        return f"The file {path} lies outside data.root={self.inside}: {HINT}."


class Numbers(Column):
    """Rows of numbers; NaN is a missing one, a row of nothing else is absent.

    Args:
        values: (n, k) float.
    """

    def __init__(self, values: np.ndarray) -> None:
        self.values = np.asarray(values, dtype=np.float64)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> np.ndarray | None:
        row = self.values[index]
        return None if np.isnan(row).all() else row

    def absent(self) -> np.ndarray:
        return np.isnan(self.values).all(axis=1)

    def take(self, indices: np.ndarray) -> Numbers:
        return Numbers(self.values[indices])


class Categories(Column):
    """Rows of values that many rows share, as an array of strings; an empty one is missing.

    A row of nothing else is absent.

    Args:
        codes: (n, k) of each value, its place in `names`; -1 = missing.
        names: of each of the k columns, its values.
    """

    def __init__(self, codes: np.ndarray, names: Sequence[Sequence[str]]) -> None:
        self.codes, self.names = codes, [[*values, ""] for values in names]  # -1 is the last

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: int) -> np.ndarray | None:
        row = self.codes[index].tolist()
        if max(row) < 0:
            return None
        return np.array([names[code] for names, code in zip(self.names, row, strict=True)])

    def absent(self) -> np.ndarray:
        return (self.codes < 0).all(axis=1)

    def take(self, indices: np.ndarray) -> Categories:
        return Categories(self.codes[indices], [names[:-1] for names in self.names])


class Tensors(Column):
    """Examples that are decoded already.

    Args:
        values: a tensor (n, …), or n tensors; None where absent.
    """

    def __init__(self, values: Tensor | Sequence[Tensor | None]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Tensor | None:
        return self.values[index]

    def absent(self) -> np.ndarray:
        if isinstance(self.values, Tensor):
            return super().absent()
        return np.array([value is None for value in self.values], dtype=bool)

    def lengths(self, reader: Reader | None) -> np.ndarray | None:
        if isinstance(self.values, Tensor):
            return None
        sizes = [0 if value is None else value.numel() for value in self.values]
        return np.array(sizes) if len({0, *sizes}) > 2 else None

    def take(self, indices: np.ndarray) -> Tensors:
        if isinstance(self.values, Tensor):
            return Tensors(self.values[indices])
        return Tensors([self.values[index] for index in indices])


@lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)


def _listing(folder: str) -> dict[str, bool]:
    """The names of plain files and symbolic links in a folder; True = a link."""
    try:
        with os.scandir(folder) as entries:
            return {
                entry.name: is_link
                for entry in entries
                if (is_link := entry.is_symlink()) or entry.is_file(follow_symlinks=False)
            }
    except OSError:
        return {}
