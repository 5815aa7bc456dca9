"""Copy a sequence of random vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from datamodules.sets.sequences.base import Drawn, SequenceDataModule


class CopyDataModule(SequenceDataModule):
    """Copy (Graves et al. 2014, section 4.1): `size` random vectors, an end mark, then repeat them.

    Args:
        bits: width of a vector.
        **common: options of `SequenceDataModule`.
    """

    def __init__(self, *, bits: int = 8, **common: Any) -> None:
        self.bits = bits
        super().__init__(**common)

    def widths(self) -> tuple[int, int]:
        return self.bits + 1, self.bits

    def draw(self, size: int, count: int, rng: np.random.Generator) -> Drawn:
        vectors = rng.integers(0, 2, (count, size, self.bits)).astype(np.float32)
        inputs = np.zeros((count, 2 * size + 1, self.bits + 1), np.float32)
        inputs[:, :size, :-1] = vectors
        inputs[:, size, -1] = 1
        target = np.zeros((count, 2 * size + 1, self.bits), np.float32)
        target[:, size + 1 :] = vectors
        return inputs, target, np.arange(2 * size + 1) > size
