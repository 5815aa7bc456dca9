"""The rate of the machine's matrix products, which utilisation is measured against."""

from __future__ import annotations

import time

import torch

SIDE = {"cpu": 2048, "cuda": 8192}  # of the square product


def matmul_rates(precision: str, device: str, side: int) -> list[float]:
    """Operations a second, best of three, of products of three shapes: square, long, tall.

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
        out = left @ right
        times = []
        for _ in range(3):
            _wait(device)
            start = time.perf_counter()
            torch.mm(left, right, out=out)
            _wait(device)
            times.append(time.perf_counter() - start)
        rates.append(2.0 * rows * inner * columns / min(times))
    return rates


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
