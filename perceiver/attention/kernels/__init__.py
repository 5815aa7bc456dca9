"""Kernels: how attention is computed, never what. `dense` is the definition."""

from perceiver.attention.kernels.chunked import chunked
from perceiver.attention.kernels.dense import dense
from perceiver.attention.kernels.flex import block_mask, flex
from perceiver.attention.kernels.folded import folded
from perceiver.attention.kernels.linear import linear
from perceiver.attention.kernels.merge import merge
from perceiver.attention.kernels.problem import Problem, Result
from perceiver.attention.kernels.sdpa import sdpa
from perceiver.attention.kernels.select import KERNELS, Request, check_kernel, select_kernel

__all__ = [
    "KERNELS",
    "Problem",
    "Request",
    "Result",
    "block_mask",
    "check_kernel",
    "chunked",
    "dense",
    "flex",
    "folded",
    "linear",
    "merge",
    "sdpa",
    "select_kernel",
]
