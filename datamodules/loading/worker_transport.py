"""How a batch goes from a worker to the process that trains.

PyTorch hands each tensor over as shared memory of its own, whose file descriptor the other process
asks for over a socket: half a millisecond a tensor, more than a small batch takes to read. Below
half a mebibyte, bytes that are copied through the pipe arrive sooner. Above, what costs is memory
that is new each time: the kernel clears its pages, and both processes map them one by one. So a
worker lends the same few buffers again and again, each when the batch that was in it is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any
from uuid import uuid4
from weakref import WeakValueDictionary, finalize

import numpy as np
import torch
from torch import Tensor

from perceiver.types import Batch

_SMALL = 2**19  # bytes
_KEPT = 2**26  # bytes of buffers that a worker keeps; what exceeds them is sent as PyTorch does
_HEAD = 64  # bytes before a buffer's content, which stays aligned; the first is 1 while it is lent


def send_by_value(kind: type[Batch]) -> None:
    """Make batches of a kind travel so; the receiver gets the same batch, of tensors of its own."""
    ForkingPickler.register(kind, _reduce)


class Lending:
    """The buffers that a loader's workers lend; give one to each loader as its `worker_init_fn`.

    A buffer is free again when no tensor is left that shares its memory, so a batch, or a view of
    it, may be kept as long as one likes: the worker then takes another buffer.

    Args:
        count: buffers that each worker has at most.
    """

    def __init__(self, count: int) -> None:
        self.count, self.name = count, uuid4().hex
        self.buffers: dict[tuple[int, int], np.ndarray] = {}  # (worker, number) → as mapped here
        _lendings[self.name] = self

    def __getstate__(self) -> dict[str, Any]:
        return {"count": self.count, "name": self.name}  # all that a worker needs

    def __call__(self, worker: int) -> None:
        """In a worker, before its first batch."""
        global _lender
        _lender = _Lender(self.name, worker, self.count)


_lendings: WeakValueDictionary[str, Lending] = WeakValueDictionary()  # of this process
_lender: _Lender | None = None  # of this worker


class _Lender:
    """A worker's side: which buffers there are, and which are free."""

    def __init__(self, lending: str, worker: int, count: int) -> None:
        self.lending, self.worker, self.count = lending, worker, count
        self.buffers: list[Tensor] = []

    def put(self, tensor: Tensor) -> _Lent | None:
        """Copies a tensor to a buffer; None = all are lent."""
        content = tensor.contiguous().flatten().view(torch.uint8)
        size = _HEAD + content.nbytes
        free = [n for n, buffer in enumerate(self.buffers) if not buffer[0]]
        number = next((n for n in free if self.buffers[n].nbytes >= size), None)
        is_new = number is None
        if number is None:
            kept = sum(buffer.nbytes for n, buffer in enumerate(self.buffers) if n not in free[:1])
            if kept + size > _KEPT or (not free and len(self.buffers) == self.count):
                return None
            # A quarter larger, as the next may be.
            buffer = torch.zeros(0, dtype=torch.uint8).set_(
                torch.UntypedStorage._new_shared(size + size // 4)
            )
            number = free[0] if free else len(self.buffers)
            self.buffers[number : number + 1] = [buffer]
        buffer = self.buffers[number]
        buffer[_HEAD:size] = content
        buffer[0] = 1
        return _Lent(self, number, tensor, is_new)


@dataclass
class _Lent:
    """A tensor in a buffer; pickled as the buffer's number, with the buffer the first time."""

    lender: _Lender
    number: int
    tensor: Tensor
    is_new: bool

    def __reduce__(self) -> tuple[Callable[..., Tensor], tuple[Any, ...]]:
        lender, tensor = self.lender, self.tensor
        buffer = lender.buffers[self.number] if self.is_new else None
        place = (lender.lending, lender.worker, self.number)
        return _borrowed, (*place, buffer, tensor.nbytes, tensor.dtype, tuple(tensor.shape))


def _borrowed(
    lending: str,
    worker: int,
    number: int,
    buffer: Tensor | None,
    size: int,
    dtype: torch.dtype,
    shape: tuple[int, ...],
) -> Tensor:
    buffers = _lendings[lending].buffers
    if buffer is not None:
        buffers[worker, number] = buffer.numpy()
    whole = buffers[worker, number]
    content = whole[_HEAD : _HEAD + size]
    # All tensors that share this memory hold `content`, however they were made of the first.
    finalize(content, whole.__setitem__, 0, 0).atexit = False
    return torch.from_numpy(content).view(dtype).view(shape)


def _reduce(batch: Batch) -> tuple[type, tuple[Any, ...]]:
    return _made, (type(batch), {name: _light(value) for name, value in vars(batch).items()})


def _made(kind: type[Batch], parts: dict[str, Any]) -> Batch:
    return kind(**parts)


def _light(part: Any) -> Any:
    """The same with tensors that travel faster: the small by value, the large in a buffer."""
    if isinstance(part, dict):
        return {name: _light(value) for name, value in part.items()}
    if not isinstance(part, Tensor):
        return part
    if part.nbytes <= _SMALL:
        return _Value(part)
    return (_lender and _lender.put(part)) or part


@dataclass
class _Value:
    """A tensor that is pickled as its bytes, and becomes a tensor again where they are read."""

    tensor: Tensor

    def __reduce__(self) -> tuple[Callable[..., Tensor], tuple[Any, ...]]:
        content = self.tensor.contiguous().flatten().view(torch.uint8).numpy()
        return _restored, (content, self.tensor.dtype, tuple(self.tensor.shape))


def _restored(content: np.ndarray, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(content).view(dtype).view(shape)
