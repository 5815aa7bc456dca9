"""How a batch goes from a worker to the process that trains: small tensors in the message itself.

PyTorch hands each tensor over as shared memory of its own, whose file descriptor the other process
asks for over a socket: half a millisecond a tensor, more than a small batch takes to read. Below
half a mebibyte, bytes that are copied through the pipe arrive sooner; above, they do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perceiver.types import Batch, SequenceBatch

_SMALL = 2**19  # bytes


def send_by_value(kind: type[Batch | SequenceBatch]) -> None:
    """Make batches of a kind travel so; the receiver gets the same batch, of tensors of its own."""
    ForkingPickler.register(kind, _reduce)


def _reduce(batch: Batch | SequenceBatch) -> tuple[type, tuple[Any, ...]]:
    return type(batch), tuple(map(_light, vars(batch).values()))


def _light(part: Any) -> Any:
    """The same with small tensors by value."""
    if isinstance(part, dict):
        return {name: _light(value) for name, value in part.items()}
    return _Value(part) if isinstance(part, Tensor) and part.nbytes <= _SMALL else part


@dataclass
class _Value:
    """A tensor that is pickled as its bytes, and becomes a tensor again where they are read."""

    tensor: Tensor

    def __reduce__(self) -> tuple[Callable[..., Tensor], tuple[Any, ...]]:
        content = self.tensor.contiguous().flatten().view(torch.uint8).numpy()
        return _restored, (content, self.tensor.dtype, tuple(self.tensor.shape))


def _restored(content: np.ndarray, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(content).view(dtype).view(shape)
