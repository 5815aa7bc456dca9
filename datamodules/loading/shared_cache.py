"""Memory that processes share, to keep decoded examples in."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from mmap import mmap
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.readers import Reader

_DTYPES = (torch.uint8, torch.float32)  # that memory holds
_NOTHING = -1  # in place of a type
_ALIGNED = 8  # bytes


class SharedTensorCache:
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
    """Zeroed memory shared with forked workers; needs no /dev/shm."""
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
