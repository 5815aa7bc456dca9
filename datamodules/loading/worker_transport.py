"""How a batch gets from a loader's worker to the process that trains.

PyTorch gives each tensor shared memory of its own and hands over its file descriptor through a
socket: half a millisecond per tensor, more than a small batch takes to read. Up to half a mebibyte,
bytes that are copied through the pipe arrive sooner. Above, the cost is new memory: the kernel
clears its pages, and both processes map them one by one. So each worker keeps a few shared buffers
and fills one again as soon as the batch that was in it is dropped.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.reduction import ForkingPickler
from threading import Thread
from typing import Any
from uuid import uuid4
from weakref import WeakValueDictionary, finalize

import numpy as np
import torch
from torch import Tensor

from perceiver.types import Batch

_SMALL = 2**19  # bytes of a tensor that goes through the pipe
_KEPT = 2**26  # bytes of buffers that a worker keeps; what exceeds them travels as PyTorch does it
_HEAD = 64  # bytes before a buffer's content, which stays aligned; the first is 1 while in use


def send_by_value(kind: type[Batch]) -> None:
    """Make batches of a kind travel so; the receiver gets the same batch, of tensors of its own."""
    ForkingPickler.register(kind, _reduce)


def exit_with_parent(worker: int) -> None:
    """In a worker: end as soon as the process that reads its batches has ended, even by SIGKILL.

    PyTorch's own check is not enough: a worker that leaves waits until its messages are read, and
    those that do not fit in the pipe never are.
    """
    parent = parent_process()
    assert parent is not None, "called in the process that trains"

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


class SharedBuffers:
    """The buffers of a loader's workers; give one object to each loader as its `worker_init_fn`.

    A buffer is free again when no tensor is left that shares its memory, so a batch, or a view of
    it, may be kept as long as one likes: the worker then takes another buffer.

    Args:
        count: buffers that each worker has at most.
    """

    def __init__(self, count: int) -> None:
        self.count, self.name = count, uuid4().hex
        self.buffers: dict[tuple[int, int], np.ndarray] = {}  # (worker, number) → as mapped here
        _receiving[self.name] = self

    def __getstate__(self) -> dict[str, Any]:
        return {"count": self.count, "name": self.name}  # all that a worker needs

    def __call__(self, worker: int) -> None:
        """In a worker, before its first batch."""
        global _sender
        _sender = _Sender(self.name, worker, self.count)
        exit_with_parent(worker)


_receiving: WeakValueDictionary[str, SharedBuffers] = WeakValueDictionary()  # of this process
_sender: _Sender | None = None  # of this worker


class _Sender:
    """A worker's side: which buffers there are, and which are free."""

    def __init__(self, owner: str, worker: int, count: int) -> None:
        self.owner, self.worker, self.count = owner, worker, count
        self.buffers: list[Tensor] = []

    def put(self, tensor: Tensor) -> _InBuffer | None:
        """Copies a tensor to a buffer; None = all are in use."""
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
        return _InBuffer(self, number, tensor, is_new)


@dataclass
class _InBuffer:
    """A tensor in a buffer; pickled as the buffer's number, with the buffer the first time."""

    sender: _Sender
    number: int
    tensor: Tensor
    is_new: bool

    def __reduce__(self) -> tuple[Callable[..., Tensor], tuple[Any, ...]]:
        sender, tensor = self.sender, self.tensor
        buffer = sender.buffers[self.number] if self.is_new else None
        place = (sender.owner, sender.worker, self.number)
        return _from_buffer, (*place, buffer, tensor.nbytes, tensor.dtype, tuple(tensor.shape))


def _from_buffer(
    owner: str,
    worker: int,
    number: int,
    buffer: Tensor | None,
    size: int,
    dtype: torch.dtype,
    shape: tuple[int, ...],
) -> Tensor:
    buffers = _receiving[owner].buffers
    if buffer is not None:
        buffers[worker, number] = buffer.numpy()
    whole = buffers[worker, number]
    content = whole[_HEAD : _HEAD + size]
    # All tensors that share this memory hold `content`, however they were made of the first.
    finalize(content, whole.__setitem__, 0, 0).atexit = False
    return torch.from_numpy(content).view(dtype).view(shape)


@dataclass
class _ByValue:
    """A tensor that is pickled as its bytes, and becomes a tensor again where they are read."""

    tensor: Tensor

    def __reduce__(self) -> tuple[Callable[..., Tensor], tuple[Any, ...]]:
        content = self.tensor.contiguous().flatten().view(torch.uint8).numpy()
        return _from_bytes, (content, self.tensor.dtype, tuple(self.tensor.shape))


def _from_bytes(content: np.ndarray, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(content).view(dtype).view(shape)


def _reduce(batch: Batch) -> tuple[type, tuple[Any, ...]]:
    return _rebuild, (type(batch), {name: _pack(value) for name, value in vars(batch).items()})


def _rebuild(kind: type[Batch], parts: dict[str, Any]) -> Batch:
    return kind(**parts)


def _pack(part: Any) -> Any:
    """The same with tensors that travel faster: the small by value, the large in a buffer."""
    if isinstance(part, dict):
        return {name: _pack(value) for name, value in part.items()}
    if not isinstance(part, Tensor):
        return part
    if part.nbytes <= _SMALL:
        return _ByValue(part)
    return (_sender and _sender.put(part)) or part
