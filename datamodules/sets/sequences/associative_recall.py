"""Recall the item that followed another."""

from __future__ import annotations

from typing import Any

import numpy as np

from datamodules.sets.sequences.base import Drawn, SequenceDataModule


class AssociativeRecallDataModule(SequenceDataModule):
    """Associative recall (Graves et al. 2014, section 4.3): which item followed this one?

    An item is a few random vectors after a mark. After `size` items one of them, not the last, is
    shown again between two query marks; the answer is the item that came after it.

    Args:
        bits: width of a vector.
        item_length: vectors of an item.
        **common: options of `SequenceDataModule`.
    """

    smallest = 2

    def __init__(self, *, bits: int = 6, item_length: int = 3, **common: Any) -> None:
        self.bits, self.item_length = bits, item_length
        super().__init__(**common)

    def widths(self) -> tuple[int, int]:
        return self.bits + 2, self.bits

    def draw(self, size: int, count: int, rng: np.random.Generator) -> Drawn:
        length, bits = self.item_length, self.bits
        items = rng.integers(0, 2, (count, size, length, bits)).astype(np.float32)
        asked = rng.integers(0, size - 1, count)
        start = size * (length + 1)
        total = start + 2 * length + 2
        inputs = np.zeros((count, total, bits + 2), np.float32)
        shown = inputs[:, :start].reshape(count, size, length + 1, bits + 2)
        shown[:, :, 0, bits] = 1
        shown[:, :, 1:, :bits] = items
        inputs[:, [start, start + length + 1], bits + 1] = 1
        inputs[:, start + 1 : start + length + 1, :bits] = items[np.arange(count), asked]
        target = np.zeros((count, total, bits), np.float32)
        target[:, -length:] = items[np.arange(count), asked + 1]
        return inputs, target, np.arange(total) >= total - length
