"""Structured attention in Triton, for GPUs; only `blocks` is of use without Triton."""
