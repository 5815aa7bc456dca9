"""Checks of what callers hand in: one sentence that names both values."""

from __future__ import annotations

from numbers import Integral

from torch import Tensor


def check_sizes(**sizes: int | None) -> None:
    """Raises ValueError for anything but a whole number above 0, naming it; None = not given."""
    for name, size in sizes.items():
        if size is not None and (not isinstance(size, Integral) or size < 1):
            raise ValueError(f"{name}={size!r} must be at least 1 and a whole number")


def check_shape(name: str, tensor: Tensor, *expected: int | str) -> None:
    """Raises ValueError for anything but a tensor of this rank and these sizes.

    Args:
        name: what the caller calls it.
        tensor: what was given.
        expected: its dimensions; a string names one that may have any size.
    """
    if isinstance(tensor, Tensor) and len(tensor.shape) == len(expected):
        sizes = zip(tensor.shape, expected, strict=True)
        if all(isinstance(want, str) or size == want for size, want in sizes):
            return
    wanted = f"expected ({', '.join(map(str, expected))})"
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name} is a {type(tensor).__name__}; {wanted}, a tensor")
    raise ValueError(f"{name} has shape {tuple(tensor.shape)}; {wanted}")


def check_floats(name: str, tensor: Tensor) -> None:
    """Raises ValueError for a tensor of anything but real numbers."""
    if not tensor.is_floating_point():
        raise ValueError(f"{name} is {tensor.dtype}; expected real numbers, as of {name}.float()")


def check_width(name: str, tensor: Tensor, width: int) -> None:
    """Raises ValueError for a tensor whose last dimension has another size."""
    if tensor.shape[-1:] != (width,):
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}; its last dimension must be {width}"
        )
