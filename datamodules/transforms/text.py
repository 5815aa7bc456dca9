"""Transforms of token ids (length,)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datamodules.readers.text import BYTE_VOCAB_SIZE, NUM_SPECIALS

_NOT_BYTES = (
    "case changes need texts of bytes, these are a tokenizer's ids: set data.text.tokenizer=bytes"
)


class ByteNoise:
    """Replaces and drops random bytes, or words; at least one always remains.

    Args:
        replace: chance, a byte, to become a random byte.
        drop: chance, a byte, to vanish.
        vocab_size: number of ids that there are.
    """

    def __init__(
        self, *, replace: float = 0.05, drop: float = 0.05, vocab_size: int = BYTE_VOCAB_SIZE
    ) -> None:
        self.replace, self.drop, self.vocab_size = replace, drop, vocab_size

    def __call__(self, ids: Tensor) -> Tensor:
        noise = torch.randint_like(ids, NUM_SPECIALS, self.vocab_size)
        ids = torch.where(torch.rand(len(ids)) < self.replace, noise, ids)
        keep = torch.rand(len(ids)) >= self.drop
        keep[0] |= ~keep.any()
        return ids[keep]


class Lowercase(nn.Module):
    """Small letters for capitals, in any script; of bytes, so of no tokenizer's ids."""

    def forward(self, ids: Tensor) -> Tensor:
        return _encode(_decode(ids).lower())


class RandomCase(nn.Module):
    """Writes some texts in capitals, some in small letters, and leaves the rest.

    Args:
        upper: chance of capitals.
        lower: chance of small letters.
        vocab_size: number of ids that there are: those of bytes.

    Raises:
        ValueError: for other ids, and for chances that are none.
    """

    def __init__(
        self, *, upper: float = 0.1, lower: float = 0.1, vocab_size: int = BYTE_VOCAB_SIZE
    ) -> None:
        super().__init__()
        if vocab_size != BYTE_VOCAB_SIZE:
            raise ValueError(_NOT_BYTES)
        if min(upper, lower) < 0 or upper + lower > 1:
            raise ValueError(f"RandomCase(upper={upper}, lower={lower}): expected two chances.")
        self.upper, self.lower = upper, lower

    def forward(self, ids: Tensor) -> Tensor:
        draw = float(torch.rand(()))
        if draw >= self.upper + self.lower:
            return ids
        text = _decode(ids)
        return _encode(text.upper() if draw < self.upper else text.lower())


def _decode(ids: Tensor) -> str:
    if len(ids) and int(ids.max()) >= BYTE_VOCAB_SIZE:
        raise ValueError(_NOT_BYTES)
    raw = bytes((ids - NUM_SPECIALS).clamp(min=0).tolist())
    return raw.decode("utf-8", errors="surrogateescape")  # cut characters come back as they were


def _encode(text: str) -> Tensor:
    raw = text.encode("utf-8", errors="surrogateescape")
    return torch.tensor(list(raw), dtype=torch.int64) + NUM_SPECIALS
