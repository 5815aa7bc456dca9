"""Retrieve the digit that stood behind a letter."""

from __future__ import annotations

from typing import Any

import numpy as np

from datamodules.sets.sequences.base import Drawn, SequenceDataModule


class AssociativeRetrievalDataModule(SequenceDataModule):
    """Associative retrieval (Ba et al. 2016, section 4.1): c9k8j3f1??c → 9.

    `size` different letters, each followed by a digit, two question marks, and one of the letters
    again; the answer is its digit.

    Args:
        letters: letters to draw from.
        digits: digits to draw from, and the classes of the answer.
        **common: options of `SequenceDataModule`.
    """

    def __init__(self, *, letters: int = 26, digits: int = 10, **common: Any) -> None:
        self.letters, self.digits = letters, digits
        super().__init__(**common)

    def widths(self) -> tuple[int, int]:
        return self.letters + self.digits + 1, self.digits

    def check_size(self, size: int) -> None:
        super().check_size(size)
        if size > self.letters:
            raise ValueError(f"{size} pairs need as many letters: data.letters={self.letters}")

    def draw(self, size: int, count: int, rng: np.random.Generator) -> Drawn:
        rows, total = np.arange(count), 2 * size + 3
        keys = rng.random((count, self.letters)).argsort(axis=1)[:, :size]
        values = rng.integers(0, self.digits, (count, size))
        inputs = np.zeros((count, total, self.letters + self.digits + 1), np.float32)
        for pair in range(size):
            inputs[rows, 2 * pair, keys[:, pair]] = 1
            inputs[rows, 2 * pair + 1, self.letters + values[:, pair]] = 1
        inputs[:, -3:-1, -1] = 1
        asked = rng.integers(0, size, count)
        inputs[rows, -1, keys[rows, asked]] = 1
        target = np.zeros((count, total), np.int64)
        target[:, -1] = values[rows, asked]
        return inputs, target, np.arange(total) == total - 1
