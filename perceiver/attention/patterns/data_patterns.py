"""Patterns that are given as numbers: lengths, segments, prefixes, layouts of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perceiver.attention.patterns.pattern import Pattern, Predicate
from perceiver.ops.checks import check_shape, check_sizes
from perceiver.shapes import Bool


@dataclass(frozen=True, eq=False)
class Prefix(Pattern):
    """j < length or causal: a prefix that all may read (Raffel et al. 2020, 3.2.1).

    Args:
        length: one for all examples, or a tensor (b,).
    """

    length: int | Tensor

    def check(
        self, num_queries: int, num_keys: int, batch: int | None = None, heads: int | None = None
    ) -> None:
        if not isinstance(self.length, int):
            check_shape("the length of prefixes", self.length, batch or "b")

    def bind(
        self, num_queries: int, num_keys: int, device: torch.device | None = None
    ) -> Predicate:
        self.check(num_queries, num_keys)
        shift, length = num_keys - num_queries, self.length
        if isinstance(length, Tensor):
            lengths = length.to(device)
            return lambda b, h, i, j: (j < lengths[b]) | (j <= i + shift)
        return lambda b, h, i, j: (j < length) | (j <= i + shift)


@dataclass(frozen=True, eq=False)
class Segments(Pattern):
    """Equal segment numbers, so that examples packed into one row do not see each other.

    Args:
        queries: (b, q) whole numbers.
        keys: (b, k); None = those of the queries.
    """

    queries: Tensor
    keys: Tensor | None = None

    is_sparse = True

    def check(
        self, num_queries: int, num_keys: int, batch: int | None = None, heads: int | None = None
    ) -> None:
        keys = self.queries if self.keys is None else self.keys
        check_shape("the segments of queries", self.queries, batch or "b", num_queries)
        check_shape("the segments of keys", keys, len(self.queries), num_keys)

    def bind(
        self, num_queries: int, num_keys: int, device: torch.device | None = None
    ) -> Predicate:
        self.check(num_queries, num_keys)
        queries = self.queries.to(device)
        keys = queries if self.keys is None else self.keys.to(device)
        return lambda b, h, i, j: queries[b, i] == keys[b, j]


@dataclass(frozen=True, eq=False)
class Lengths(Pattern):
    """j < lengths[b]: real elements, not padding.

    Args:
        lengths: (b,) whole numbers.
    """

    lengths: Tensor

    def check(
        self, num_queries: int, num_keys: int, batch: int | None = None, heads: int | None = None
    ) -> None:
        check_shape("lengths", self.lengths, batch or "b")

    def bind(
        self, num_queries: int, num_keys: int, device: torch.device | None = None
    ) -> Predicate:
        self.check(num_queries, num_keys)
        lengths = self.lengths.to(device)
        return lambda b, h, i, j: j < lengths[b]

    def over_keys(
        self, num_keys: int, device: torch.device | None = None
    ) -> Bool[Tensor, "b {num_keys}"]:
        """The mask over so many keys."""
        return torch.arange(num_keys, device=device) < self.lengths.to(device)[:, None]


@dataclass(frozen=True, eq=False)
class BlockSparse(Pattern):
    """layout[⌊i / size⌋, ⌊j / size⌋] (Child et al. 2019; Zaheer et al. 2020).

    Args:
        layout: (query blocks, key blocks) or (heads, query blocks, key blocks), 0/1 or bool; a list
            of lists will do.
        size: elements along a block.
    """

    layout: Tensor | Sequence[Sequence[int]]
    size: int

    is_sparse = True

    def __post_init__(self) -> None:
        check_sizes(size=self.size)

    def check(
        self, num_queries: int, num_keys: int, batch: int | None = None, heads: int | None = None
    ) -> None:
        shape = tuple(torch.as_tensor(self.layout).shape)
        fits_heads = heads is None or shape[:-2] in ((), (heads,))
        if len(shape) not in (2, 3) or not fits_heads:
            raise ValueError(
                f"block_sparse has a layout of shape {shape}; expected (query blocks, key blocks), "
                f"or ({heads or 'heads'}, query blocks, key blocks)"
            )
        needed = (-(-num_queries // self.size), -(-num_keys // self.size))
        if shape[-2] < needed[0] or shape[-1] < needed[1]:
            raise ValueError(
                f"block_sparse has a layout of {shape[-2:]} blocks of {self.size}; "
                f"{num_queries} queries and {num_keys} keys need {needed}"
            )

    def bind(
        self, num_queries: int, num_keys: int, device: torch.device | None = None
    ) -> Predicate:
        self.check(num_queries, num_keys)
        layout = torch.as_tensor(self.layout, device=device).bool()
        if layout.dim() == 3:
            return lambda b, h, i, j: layout[h, i // self.size, j // self.size]
        return lambda b, h, i, j: layout[i // self.size, j // self.size]
