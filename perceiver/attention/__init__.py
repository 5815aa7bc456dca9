"""Attention as one equation with named axes; needs torch alone."""

from perceiver.attention.attention import Attention, AttentionAux, AttentionOutput

__all__ = ["Attention", "AttentionAux", "AttentionOutput"]
