"""Heads, axis 5 of attention: the projections."""

from perceiver.attention.heads.differential import DifferentialHeads
from perceiver.attention.heads.qkv import Heads, Identity, QKVHeads

__all__ = ["DifferentialHeads", "Heads", "Identity", "QKVHeads"]
