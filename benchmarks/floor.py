"""The matrix products and attention kernels of a step, each timed alone: what the rest adds to."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}
KERNELS = ("aten::_scaled_dot_product_", "perceiver::")
# Bytes over which copies of the operands are spread, so that they come from memory as in a step.
SPREAD = 1 << 26
MOST_COPIES = 16


@dataclass(frozen=True)
class _Like:
    """All that the time of an operation depends on in a tensor."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return cls(value.shape, value.stride(), value.dtype, value.device)

    @property
    def bytes(self) -> int:
        return self.shape.numel() * self.dtype.itemsize

    def made(self) -> Tensor:
        places = 1 + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        if self.dtype.is_floating_point:  # small, so that no exponential under- or overflows
            values = (1e-2 * torch.randn(places, device=self.device)).to(self.dtype)
        else:  # a mask that keeps all
            values = torch.ones(places, device=self.device, dtype=self.dtype)
        return values.as_strided(self.shape, self.stride)


@dataclass(frozen=True)
class Call:
    """An operation and what it was called with, tensors by their layouts."""

    function: Callable[..., Any]
    leaves: tuple[Hashable, ...]
    structure: Any  # of (args, kwargs), as torch's pytrees have it

    def seconds(self, least: float) -> float:
        """The median time of the call alone, over about `least` seconds."""
        size = sum(leaf.bytes for leaf in self.leaves if isinstance(leaf, _Like))
        operands = [self._operands() for _ in range(min(MOST_COPIES, 1 + SPREAD // (1 + size)))]
        times: list[float] = []
        with torch.no_grad():
            self._run(operands)
            end = time.perf_counter() + least
            while not times or time.perf_counter() < end:
                start = time.perf_counter()
                self._run(operands)
                times.append((time.perf_counter() - start) / len(operands))
        return median(times)

    def _operands(self) -> tuple[Any, Any]:
        leaves = [leaf.made() if isinstance(leaf, _Like) else leaf for leaf in self.leaves]
        return tree_unflatten(leaves, self.structure)

    def _run(self, operands: list[tuple[Any, Any]]) -> None:
        for args, kwargs in operands:
            self.function(*args, **kwargs)
        if torch.cuda.is_available():
            torch.cuda.synchronize()


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[Call] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func._schema.name
        if name in PRODUCTS or name.startswith(KERNELS):
            leaves, structure = tree_flatten((args, kwargs or {}))
            self.calls[Call(func, tuple(_Like.of(leaf) for leaf in leaves), structure)] += 1
        return func(*args, **(kwargs or {}))


def recorded(step: Callable[[], object]) -> Counter[Call]:
    """The products and kernels that a step calls, and how often each."""
    with _Recorder() as recorder:
        step()
    return recorder.calls


def alone(calls: Counter[Call], least: float = 0.05) -> float:
    """Seconds that these calls take if nothing comes between calls of the same kind.

    Args:
        calls: what and how often.
        least: seconds for which each kind is repeated.
    """
    return sum(count * call.seconds(least) for call, count in calls.items())
