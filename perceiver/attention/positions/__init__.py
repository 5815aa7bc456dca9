"""Positions, axis 2 of attention: where queries and keys stand."""

from perceiver.attention.positions.biases import ALiBi, SwinTable, T5Buckets
from perceiver.attention.positions.position import NoPosition, Position
from perceiver.attention.positions.relative import RelativeTable, RelativeTable2d, TransformerXL
from perceiver.attention.positions.rotary import RoPE

__all__ = [
    "ALiBi",
    "NoPosition",
    "Position",
    "RelativeTable",
    "RelativeTable2d",
    "RoPE",
    "SwinTable",
    "T5Buckets",
    "TransformerXL",
]
