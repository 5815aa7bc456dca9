"""Attention as one equation with named axes; needs torch alone."""

from perceiver.attention.attention import Attention, AttentionOutput

__all__ = ["Attention", "AttentionOutput"]
