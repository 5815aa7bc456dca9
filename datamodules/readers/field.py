"""What the tensors of one modality look like, for the collator to join them."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Field:
    """What the tensors of one modality look like.

    Args:
        shape: of one example; of one element where `is_ragged`; the largest where `has_own_size`.
        dtype: of the values. uint8 for float32 are pixels 0…255 and come to lie in [-1, 1].
        is_ragged: examples are (length, *shape) with lengths of their own.
        has_own_size: examples are (channels, height, width) with heights and widths of their own.
        pad_multiple: padded lengths, or heights and widths, are rounded up to a multiple of this
            (fewer distinct shapes).
        max_length: padding never exceeds this length; None = no limit.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    is_ragged: bool = False
    has_own_size: bool = False
    pad_multiple: int = 1
    max_length: int | None = None

    @property
    def has_one_shape(self) -> bool:
        """Whether all examples have the same shape."""
        return not (self.is_ragged or self.has_own_size)

    def padded_length(self, length: int) -> int:
        """The length of a batch whose longest example has `length` elements."""
        return _round_up(length, self.pad_multiple, self.max_length)

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """The size of a batch whose highest and widest examples are so large."""
        sides = zip((height, width), self.shape[-2:], strict=True)
        rows, columns = (_round_up(side, self.pad_multiple, limit) for side, limit in sides)
        return rows, columns


def _round_up(length: int, multiple: int, limit: int | None) -> int:
    rounded = -(-max(length, 1) // multiple) * multiple
    return rounded if limit is None else max(length, min(rounded, limit), 1)
