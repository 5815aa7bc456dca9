"""Kernels: how attention is computed, never what. `dense` is the definition."""

from perceiver.attention.kernels.dense import dense
from perceiver.attention.kernels.sdpa import sdpa
from perceiver.attention.kernels.select import KERNELS, select_kernel

__all__ = ["KERNELS", "dense", "sdpa", "select_kernel"]
