"""Patterns, axis 3 of attention: which keys a query may attend to, as predicates of indices."""

from perceiver.attention.patterns.data_patterns import BlockSparse, Lengths, Prefix, Segments
from perceiver.attention.patterns.index_patterns import (
    Block,
    Causal,
    Dilated,
    Full,
    Global,
    Local2d,
    Neighbourhood,
    Window,
)
from perceiver.attention.patterns.luong_local import Localised, LuongLocal
from perceiver.attention.patterns.pattern import (
    Combined,
    Pattern,
    PatternMaker,
    Predicate,
    Sizes,
    evaluate,
)

__all__ = [
    "Block",
    "BlockSparse",
    "Causal",
    "Combined",
    "Dilated",
    "Full",
    "Global",
    "Lengths",
    "Local2d",
    "Localised",
    "LuongLocal",
    "Neighbourhood",
    "Pattern",
    "PatternMaker",
    "Predicate",
    "Prefix",
    "Segments",
    "Sizes",
    "Window",
    "evaluate",
]
