"""Stateful addressing: memories with `step(control, state) -> (read, weights, state)`."""

from perceiver.attention.memory.cells import CellState, DNCCell, MemoryCell, NTMCell
from perceiver.attention.memory.content import (
    Memory,
    Weightings,
    content_weights,
    cosine,
    oneplus,
    read,
    write,
)
from perceiver.attention.memory.dnc import (
    DNCMemory,
    DNCState,
    allocation,
    follow_links,
    update_links,
    update_precedence,
    update_usage,
)
from perceiver.attention.memory.ntm import (
    Addressing,
    NTMMemory,
    NTMState,
    address,
    interpolate,
    sharpen,
    shift,
)

__all__ = [
    "Addressing",
    "CellState",
    "DNCCell",
    "DNCMemory",
    "DNCState",
    "Memory",
    "MemoryCell",
    "NTMCell",
    "NTMMemory",
    "NTMState",
    "Weightings",
    "address",
    "allocation",
    "content_weights",
    "cosine",
    "follow_links",
    "interpolate",
    "oneplus",
    "read",
    "sharpen",
    "shift",
    "update_links",
    "update_precedence",
    "update_usage",
    "write",
]
