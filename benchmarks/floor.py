"""Every operator of a step, timed alone: what it would take with nothing between them."""

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
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

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
    most: int | None = None  # of whole numbers, which are indices: the largest

    @classmethod
    def of(cls, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        is_number = value.is_floating_point() or value.is_complex()
        is_index = value.dtype != torch.bool and not is_number and value.numel() > 0
        most = max(0, int(value.max())) if is_index else None
        return cls(value.shape, value.stride(), value.dtype, value.device, most)

    @property
    def bytes(self) -> int:
        return self.shape.numel() * self.dtype.itemsize

    def made(self) -> Tensor:
        places = 1 + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        if self.dtype.is_floating_point:  # small, so that no exponential under- or overflows
            values = (1e-2 * torch.randn(places, device=self.device)).to(self.dtype)
        elif self.most is not None:
            size = (self.most + 1, (places,))
            values = torch.randint(*size, device=self.device, dtype=self.dtype)
        else:  # a mask that keeps all
            values = torch.ones(places, device=self.device, dtype=self.dtype)
        return values.as_strided(self.shape, self.stride)


@dataclass(frozen=True)
class Call:
    """An operation and what it was called with, tensors by their layouts."""

    function: Callable[..., Any]
    leaves: tuple[Hashable, ...]
    structure: Any  # of (args, kwargs), as torch's pytrees have it

    @property
    def is_product(self) -> bool:
        """Whether it is a matrix product or an attention kernel."""
        name = self.function._schema.name  # type: ignore[attr-defined]
        return name in PRODUCTS or name.startswith(KERNELS)

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
        leaves, structure = tree_flatten((args, kwargs or {}))
        call = Call(func, tuple(_Like.of(leaf) for leaf in leaves), structure)
        result = func(*args, **(kwargs or {}))
        if _touches_memory(func, leaves, result):
            self.calls[call] += 1
        return result


def _touches_memory(function: Any, given: list[Any], result: Any) -> bool:
    """Whether an operator wrote anything: views return what they were given, others nothing."""
    if function._schema.is_mutable:
        return True
    if "empty" in function._schema.name:  # memory as it comes
        return False
    return not _memory(tree_leaves(result)) <= _memory(given)


def _memory(leaves: list[Any]) -> set[int]:
    return {leaf.untyped_storage().data_ptr() for leaf in leaves if isinstance(leaf, Tensor)}


def recorded(step: Callable[[], object]) -> Counter[Call]:
    """The operators that a step calls, views aside, and how often each."""
    with _Recorder() as recorder:
        step()
    return recorder.calls


def alone(calls: Counter[Call], least: float = 0.02) -> dict[str, float]:
    """Seconds that these calls take if nothing comes between calls of the same kind.

    Args:
        calls: what and how often.
        least: seconds for which each kind is repeated.

    Returns:
        "products", of the matrix products and attention kernels; "operators", of all; "left_out",
        how many calls are in neither, as they do not run on operands like theirs.
    """
    found = {"products": 0.0, "operators": 0.0, "left_out": 0}
    for call, count in calls.items():
        try:
            seconds = count * call.seconds(least)
        except Exception:  # whatever the operator says of such operands
            found["left_out"] += count
            continue
        found["operators"] += seconds
        found["products"] += seconds * call.is_product
    return found
