"""The rate of the machine's matrix products, which utilisation is measured against."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # left, right, where it may go
SIDE = {"cpu": 2048, "cuda": 8192}  # of the square product


def matmul_rates(precision: str, device: str, side: int) -> list[float]:
    """Operations a second, best of three, of products of three shapes: square, long, tall.

    Of each library that torch has for them.

    Args:
        precision: "fp32" or "bf16".
        device: "cpu" or "cuda".
        side: of the square one; the others ask for as much work or less.
    """
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    half, quarter = side // 2, side // 4
    rates = []
    for rows, inner, columns in (
        (side, side, side),
        (half, 2 * side, half),
        (8 * side, quarter, quarter),
    ):
        left = torch.randn(rows, inner, device=device, dtype=dtype)
        right = torch.randn(inner, columns, device=device, dtype=dtype)
        for multiply in _libraries(precision, device):
            out = multiply(left, right, None)
            times = []
            for _ in range(3):
                _wait(device)
                start = time.perf_counter()
                multiply(left, right, out)
                _wait(device)
                times.append(time.perf_counter() - start)
            rates.append(2.0 * rows * inner * columns / min(times))
    return rates


def layer_rate(precision: str, device: str, side: int) -> float:
    """Operations a second of the products of linear layers that follow each other.

    Each of 32 layers multiplies a quarter as many rows as `side` by weights of half its width, and
    makes the gradients of both: as in a training step, weights come from memory and not from the
    cache, which no arrangement of the model's work can change. By the quickest library.

    Args:
        precision, device, side: as for `matmul_rates`.
    """
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    rows, width, layers = side // 4, side // 2, 32
    options = {"device": device, "dtype": dtype}
    weights = [torch.randn(width, width, **options) for _ in range(layers)]
    slopes = [torch.zeros(width, width, **options) for _ in range(layers)]
    x, gradient = torch.randn(rows, width, **options), torch.randn(rows, width, **options)
    out = torch.empty_like(x)
    times = []
    for multiply in _libraries(precision, device):
        for _ in range(3):
            _wait(device)
            start = time.perf_counter()
            for weight in weights:
                multiply(x, weight.T, out)
            for weight, slope in zip(weights, slopes, strict=True):
                multiply(gradient, weight, out)
                multiply(gradient.T, x, slope)
            _wait(device)
            times.append(time.perf_counter() - start)
    return 3 * layers * 2.0 * rows * width**2 / min(times)


def _libraries(precision: str, device: str) -> list[Product]:
    """What torch multiplies with by itself, and on CPUs in fp32 oneDNN, which can be quicker."""
    if precision != "fp32" or device != "cpu" or not torch.backends.mkldnn.is_available():
        return [_torch]
    # Where only a peer is at home, whose package may have the same name, nothing is multiplied.
    from perceiver.ops.matmul import NEVER_ROUNDS, rounding_allowed

    def onednn_in_place(left: Tensor, right: Tensor, out: Tensor | None) -> Tensor:
        """Transposed operands are not copied."""
        with rounding_allowed():
            return _torch(left, right, out)

    return [_torch, _onednn, *[onednn_in_place] * NEVER_ROUNDS]


def _torch(left: Tensor, right: Tensor, out: Tensor | None) -> Tensor:
    return torch.mm(left, right) if out is None else torch.mm(left, right, out=out)


def _onednn(left: Tensor, right: Tensor, _: Tensor | None) -> Tensor:
    """Into memory of its own."""
    return torch.ops.mkldnn._linear_pointwise(left, right.T, None, "none", [], "")


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
