"""Kernels: how attention is computed, never what. `dense` is the definition."""

from perceiver.attention.kernels.kernel import Kernel, Result
from perceiver.attention.kernels.merge import merge
from perceiver.attention.kernels.problem import Problem
from perceiver.attention.kernels.select import KERNELS, check_name, select_kernel

__all__ = ["KERNELS", "Kernel", "Problem", "Result", "check_name", "merge", "select_kernel"]
