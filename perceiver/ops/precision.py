"""Half precision → float32, where something is summed."""

from __future__ import annotations

from torch import Tensor


def widen(values: Tensor) -> Tensor:
    """The values in float32 at least: half precision sums badly."""
    return values.float() if values.dtype.itemsize < 4 else values
