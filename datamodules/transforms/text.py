"""Augmentations of token ids (length,)."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.readers.text import BYTE_VOCAB_SIZE, NUM_SPECIALS


class ByteNoise:
    """Replaces and drops random bytes; at least one always remains.

    Args:
        replace: chance, a byte, to become a random byte.
        drop: chance, a byte, to vanish.
    """

    def __init__(self, *, replace: float = 0.05, drop: float = 0.05) -> None:
        self.replace, self.drop = replace, drop

    def __call__(self, ids: Tensor) -> Tensor:
        noise = torch.randint_like(ids, NUM_SPECIALS, BYTE_VOCAB_SIZE)
        ids = torch.where(torch.rand(len(ids)) < self.replace, noise, ids)
        keep = torch.rand(len(ids)) >= self.drop
        keep[0] |= ~keep.any()
        return ids[keep]
