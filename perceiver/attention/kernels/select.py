"""Which kernel computes an attention: the one asked for, or the cheapest that is exact."""

from __future__ import annotations

import math

import torch

from perceiver.attention.kernels.chunked import Chunked
from perceiver.attention.kernels.cost import ROOMY
from perceiver.attention.kernels.dense import Dense
from perceiver.attention.kernels.flex import Flex
from perceiver.attention.kernels.kernel import Kernel
from perceiver.attention.kernels.linear import Linear
from perceiver.attention.kernels.problem import Problem
from perceiver.attention.kernels.sdpa import SDPA
from perceiver.attention.kernels.structured.folded import Folded, Separable

# Of kernels that cost the same the first is taken.
KERNELS: dict[str, Kernel] = {
    kernel.name: kernel
    for kernel in (SDPA(), Linear(), Dense(), Folded(), Separable(), Flex(), Chunked())
}


def check_name(kernel: str) -> None:
    """Raises ValueError for a kernel that there is not."""
    if kernel != "auto" and kernel not in KERNELS:
        known = ", ".join(["auto", *KERNELS])
        raise ValueError(f"unknown kernel {kernel!r}: choose one of {known}")


def select_kernel(kernel: str, problem: Problem) -> Kernel:
    """The kernel to run.

    Args:
        kernel: its name; "auto" = the cheapest that does not refuse. One that would hold more than
            1 GiB is passed over for one that holds less.
        problem: what to compute.

    Raises:
        ValueError: if the kernel that is asked for refuses.
    """
    return _cheapest(problem) if kernel == "auto" else _asked_for(kernel, problem)


def _asked_for(kernel: str, problem: Problem) -> Kernel:
    if obstacle := KERNELS[kernel].refuses(problem):
        raise ValueError(f"kernel={kernel} refuses this attention; {obstacle}; use kernel=auto")
    return KERNELS[kernel]


def _cheapest(problem: Problem) -> Kernel:
    serving = [kernel for kernel in KERNELS.values() if not kernel.refuses(problem)]
    if torch.compiler.is_exporting():  # sizes are symbols, and programs do without this package
        return serving[0]
    costs = {kernel: kernel.cost(problem) for kernel in serving}
    known = [kernel for kernel in serving if costs[kernel] < math.inf]
    return min(known, key=lambda kernel: (max(ROOMY, kernel.holds(problem)), costs[kernel]))
