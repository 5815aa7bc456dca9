"""Where decoded examples are kept: memory that processes share, or files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.readers import Reader

_DTYPES = (torch.uint8, torch.float32)  # that memory holds
_NOTHING = -1  # in place of a type
_ALIGNED = 8  # bytes


class Memory:
    """Room for the tensor of each example, shared with worker processes; empty to begin with.

    Every example has room for the largest, but memory that nothing is written to is never taken.
    Two processes that decode an example at the same time write the same.

    Args:
        count: examples.
        reader: says how large they are, decoded.

    Raises:
        ValueError: there is not so much memory.
    """

    def __init__(self, count: int, reader: Reader) -> None:
        field = reader.field()
        self.axes = len(field.shape) + field.is_ragged
        self.room = -(-reader.decoded_bytes() // _ALIGNED) * _ALIGNED
        self.values = _shared(count * self.room)
        # (count, 1 + axes) int32: number of the type, from 1, and shape; 0 = not put here yet
        self.heads = _shared(count * 4 * (1 + self.axes))
        self._open()

    def _open(self) -> None:
        self._heads = self.heads.numpy().view(np.int32).reshape(-1, 1 + self.axes)
        self._bytes = self.values.numpy()
        self._typed = [self.values.view(dtype) for dtype in _DTYPES]

    def __getstate__(self) -> dict[str, Any]:
        # For a worker that is not forked: PyTorch moves memory that it can share with it, so what
        # looks into it must be opened anew.
        for tensor in (self.values, self.heads):
            tensor.share_memory_()
        self._open()
        return {name: vars(self)[name] for name in ("axes", "room", "values", "heads")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def new(self, indices: Sequence[int]) -> list[int]:
        """Which of these nobody has put here yet."""
        return np.flatnonzero(self._heads[indices, 0] == 0).tolist()

    def get(self, indices: Sequence[int]) -> list[Tensor | None]:
        """The tensors, which share the memory; None where there is none."""
        found: list[Tensor | None] = []
        for index, (number, *shape) in zip(indices, self._heads[indices].tolist(), strict=True):
            if number > 0:
                values = self._typed[number - 1]
                start = index * (self.room // values.itemsize)
                found.append(values.as_strided(shape, _strides(*shape), start))
            else:
                found.append(None)
        return found

    def put(self, indices: Sequence[int], tensors: Sequence[Tensor | None]) -> None:
        """Keeps those that have the shape, the type and the size that the reader says, and None."""
        places, heads = list[int](), list[tuple[int, ...]]()
        for index, tensor in zip(indices, tensors, strict=True):
            head = (_NOTHING, *[0] * self.axes)
            if tensor is not None:
                if (
                    tensor.dtype not in _DTYPES
                    or tensor.ndim != self.axes
                    or tensor.nbytes > self.room
                ):
                    continue
                # In NumPy, which takes a fifth of torch's time for a short clip.
                start, content = index * self.room, tensor.numpy().reshape(-1).view(np.uint8)
                self._bytes[start : start + tensor.nbytes] = content
                head = (1 + _DTYPES.index(tensor.dtype), *tensor.shape)
            places.append(index)
            heads.append(head)
        if places:
            told = np.array(heads, dtype=np.int32)
            self._heads[places, 1:] = told[:, 1:]
            self._heads[places, 0] = told[:, 0]  # last: it says that all the rest is here


def _shared(size: int) -> Tensor:
    """Zeros that processes which are forked share; Python's way needs no room in /dev/shm."""
    try:
        memory = mmap(-1, max(size, 1))
    except OSError as error:
        raise ValueError(
            f"There is no memory for {size / 2**30:.3g} GiB of decoded examples: lower "
            "data.cache_gib, which is the most that is kept."
        ) from error
    return torch.frombuffer(memory, dtype=torch.uint8)[:size]


@lru_cache(maxsize=2**12)
def _strides(*shape: int) -> tuple[int, ...]:
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


class StoreWriter:
    """Writes tensors of one type end to end into a folder, for `Store`.

    Args:
        folder: is made.
        count: how many tensors; any of them may be missing.
        has_one_shape: whether all have the same.
    """

    def __init__(self, folder: Path, count: int, *, has_one_shape: bool) -> None:
        self.folder, self.has_one_shape = folder, has_one_shape
        self.held = np.zeros(count, dtype=bool)
        self.starts = np.zeros(count + 1, dtype=np.int64)
        self.shapes: np.ndarray | None = None  # (count, axes)
        self._count = 0
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
        self.shapes[rows][self.held[rows]] = [tensor.shape for tensor in here]
        self._file.write(torch.cat([tensor.flatten() for tensor in here]).numpy())

    def close(self) -> None:
        """No more will come."""
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


class Store:
    """What a `StoreWriter` closed; values are read from the disk as they are asked for.

    Args:
        folder: they were written to.

    Raises:
        ValueError: something else is in it.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._open(folder)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError) as error:
            raise ValueError(
                f"The decoded examples in {folder.parent} are damaged "
                f"({str(error) or type(error).__name__}): delete that folder, and they are decoded "
                "again."
            ) from error

    def _open(self, folder: Path) -> None:
        told = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        self.has_one_shape = told["has_one_shape"]
        self.held = np.zeros(told["count"], dtype=bool)
        self.starts = np.zeros(told["count"] + 1, dtype=np.int64)
        if told["dtype"] is not None:
            self.shapes, self.held, self.starts = (
                np.load(folder / f"{name}.npy", allow_pickle=False)
                for name in ("shapes", "held", "starts")
            )
            path, size = folder / "values.bin", int(self.starts[-1])
            dtype = getattr(torch, told["dtype"])
            if path.stat().st_size != size * dtype.itemsize:
                raise ValueError(f"values.bin has {path.stat().st_size} bytes")
            self.values = torch.from_file(str(path), shared=False, size=size, dtype=dtype)

    def get(self, indices: Sequence[int]) -> list[Tensor | None]:
        """The tensors, which share the store's memory; None where there is none."""
        return [self._get(index) if self.held[index] else None for index in indices]

    def _get(self, index: int) -> Tensor:
        values = self.values[self.starts[index] : self.starts[index + 1]]
        return values if self.shapes.shape[1] == 1 else values.view(self.shapes[index].tolist())

    def lengths(self) -> np.ndarray | None:
        """(n,) elements of each tensor; None = all have one shape."""
        return None if self.has_one_shape else np.diff(self.starts)
