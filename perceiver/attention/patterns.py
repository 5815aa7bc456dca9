"""Patterns, axis 3 of attention: which keys a query may attend to, as predicates of indices.

A pattern says for (example b, head h, query i, key j) whether j is kept. The dense mask and
FlexAttention's block mask are made from the same predicate, and `&` and `|` combine patterns.
Query i of q stands at p_i = i + (k − q): the last query at the last key.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import no_type_check

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from perceiver.attention.checks import check_shape, check_sizes
from perceiver.attention.grids import check_grid, coordinates, require_grid, rim_size

# Predicates are not type-checked in tests: FlexAttention counts their arguments and traces them.
Predicate = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Pattern(ABC):
    """Base of patterns.

    `extra_keys`: keys without content that the pattern adds behind the real ones (padding).
    `is_sparse`: of a long sequence a query sees little, in runs that leave out whole blocks.
    """

    extra_keys = 0
    is_sparse = False

    @abstractmethod
    def bind(
        self, num_queries: int, num_keys: int, device: torch.device | None = None
    ) -> Predicate:
        """The predicate (b, h, i, j) → bool for so many queries and (real) keys."""

    def gain(self, num_keys: int) -> Float[Tensor, "#b #h q k"] | None:
        """A factor on the weights after normalisation; None = 1."""
        return None

    def dense(
        self,
        num_queries: int,
        num_keys: int,
        *,
        batch: int = 1,
        heads: int = 1,
        device: torch.device | None = None,
    ) -> Bool[Tensor, "#b #h q k"]:
        """The mask as a tensor; dimensions b and h are 1 where the pattern does not use them."""
        predicate = self.bind(num_queries, num_keys, device)
        rows = torch.arange(num_queries, device=device)
        columns = torch.arange(num_keys + self.extra_keys, device=device)
        return evaluate(predicate, rows, columns, batch=batch, heads=heads)

    def __and__(self, other: Pattern) -> Pattern:
        return Combined(self, other, is_union=False)

    def __or__(self, other: Pattern) -> Pattern:
        return Combined(self, other, is_union=True)


def evaluate(
    predicate: Predicate, rows: Tensor, columns: Tensor, *, batch: int = 1, heads: int = 1
) -> Bool[Tensor, "#b #h q k"]:
    """The predicate on all pairs of the given query and key indices."""
    b = torch.arange(batch, device=rows.device)[:, None, None, None]
    h = torch.arange(heads, device=rows.device)[:, None, None]
    keep = predicate(b, h, rows[:, None], columns)
    # shape[0], not len: torch.export would take a length for a constant.
    whole = keep.expand(*keep.shape[:-2], rows.shape[0], columns.shape[0])
    return whole[(None,) * (4 - keep.dim())]


@dataclass(frozen=True)
class Combined(Pattern):
    """Two patterns with "and" or "or" between."""

    first: Pattern
    second: Pattern
    is_union: bool

    name = ""

    @property
    def extra_keys(self) -> int:  # type: ignore[override]
        return max(self.first.extra_keys, self.second.extra_keys)

    @property
    def is_sparse(self) -> bool:  # type: ignore[override]
        parts = self.first.is_sparse, self.second.is_sparse
        return all(parts) if self.is_union else any(parts)

    def bind(
        self, num_queries: int, num_keys: int, device: torch.device | None = None
    ) -> Predicate:
        first, second = (
            part.bind(num_queries, num_keys, device) for part in (self.first, self.second)
        )
        if self.is_union:
            return lambda b, h, i, j: first(b, h, i, j) | second(b, h, i, j)
        return lambda b, h, i, j: first(b, h, i, j) & second(b, h, i, j)

    def gain(self, num_keys: int) -> Tensor | None:
        gains = [part.gain(num_keys) for part in (self.first, self.second)]
        known = [gain for gain in gains if gain is not None]
        return None if not known else known[0] if len(known) == 1 else known[0] * known[1]


class Full(Pattern):
    """Every key."""

    def bind(
        self, num_queries: int, num_keys: int, device: torch.device | None = None
    ) -> Predicate:
        return lambda b, h, i, j: (i >= 0) & (j >= 0)


class Causal(Pattern):
    """j ≤ p_i: nothing that comes later."""

    def bind(
        self, num_queries: int, num_keys: int, device: torch.device | None = None
    ) -> Predicate:
        shift = num_keys - num_queries
        return lambda b, h, i, j: j <= i + shift


@dataclass(frozen=True)
class Window(Pattern):
    """p_i − left ≤ j ≤ p_i + right (Beltagy et al. 2020, §3.1, with left = right = w/2).

    A sliding window W of Hugging Face is (W − 1, 0), one of Keras (W − 1, W − 1).
    """

    left: int
    right: int = 0

    is_sparse = True

    def bind(
        self, num_queries: int, num_keys: int, device: torch.device | None = None
    ) -> Predicate:
        shift = num_keys - num_queries
        return lambda b, h, i, j: (j >= i + shift - self.left) & (j <= i + shift + self.right)


@dataclass(frozen=True)
class Block(Pattern):
    """⌊p_i / size⌋ = ⌊j / size⌋: only the query's own block."""

    size: int

    is_sparse = True

    def __post_init__(self) -> None:
        check_sizes(size=self.size)

    def bind(
        self, num_queries: int, num_keys: int, device: torch.device | None = None
    ) -> Predicate:
        shift = num_keys - num_queries
        return lambda b, h, i, j: (
            torch.div(i + shift, self.size, rounding_mode="floor")
            == torch.div(j, self.size, rounding_mode="floor")
        )


@dataclass(frozen=True)
class Dilated(Pattern):
    """|p_i − j| ≤ window · dilation and a multiple of it (Beltagy et al. 2020, §3.1)."""

    window: int
    dilation: int = 2

    is_sparse = True

    def __post_init__(self) -> None:
        check_sizes(dilation=self.dilation)

    def bind(
        self, num_queries: int, num_keys: int, device: torch.device | None = None
    ) -> Predicate:
        shift, dilation = num_keys - num_queries, self.dilation

        @no_type_check
        def keep(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            distance = (i + shift - j).abs()
            return (distance <= self.window * dilation) & (distance % dilation == 0)

        return keep


@dataclass(frozen=True)
class Neighbourhood(Pattern):
    """`size` keys around p_i; at the ends the window is shifted inside, never shortened.

    Hassani et al. 2023, "Neighborhood attention transformer", §3.1.
    """

    size: int

    is_sparse = True

    def __post_init__(self) -> None:
        check_sizes(size=self.size)

    def bind(
        self, num_queries: int, num_keys: int, device: torch.device | None = None
    ) -> Predicate:
        shift, last = num_keys - num_queries, max(num_keys - self.size, 0)

        @no_type_check
        def keep(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            start = (i + shift - self.size // 2).clamp(0, last)
            return (j >= start) & (j < start + self.size)

        return keep


@dataclass(frozen=True, eq=False)
class Prefix(Pattern):
    """j < length or causal: a prefix that all may read (Raffel et al. 2020, §3.2.1).

    Args:
        length: one for all examples, or a tensor (b,).
    """

    length: int | Tensor

    def bind(
        self, num_queries: int, num_keys: int, device: torch.device | None = None
    ) -> Predicate:
        shift, length = num_keys - num_queries, self.length
        if isinstance(length, Tensor):
            lengths = length.to(device)
            return lambda b, h, i, j: (j < lengths[b]) | (j <= i + shift)
        return lambda b, h, i, j: (j < length) | (j <= i + shift)


@dataclass(frozen=True)
class Global(Pattern):
    """p_i or j is one of `indices`: they read everything, and everything reads them.

    The global tokens of Longformer (Beltagy et al. 2020, §3.1): `Window(…) | Global(…)`.
    """

    indices: Sequence[int]

    is_sparse = True

    def bind(
        self, num_queries: int, num_keys: int, device: torch.device | None = None
    ) -> Predicate:
        shift = num_keys - num_queries
        chosen = torch.tensor(list(self.indices), dtype=torch.long, device=device)
        is_global = torch.zeros(num_keys, dtype=torch.bool, device=device)
        is_global[chosen[(chosen >= 0) & (chosen < num_keys)]] = True

        @no_type_check
        def keep(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            p = i + shift
            return (is_global[p.clamp_min(0)] & (p >= 0)) | is_global[j]

        return keep


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

    def bind(
        self, num_queries: int, num_keys: int, device: torch.device | None = None
    ) -> Predicate:
        queries = self.queries.to(device)
        keys = queries if self.keys is None else self.keys.to(device)
        check_shape("the segments of queries", queries, "b", num_queries)
        check_shape("the segments of keys", keys, queries.shape[0], num_keys)
        return lambda b, h, i, j: queries[b, i] == keys[b, j]


@dataclass(frozen=True, eq=False)
class Lengths(Pattern):
    """j < lengths[b]: real elements, not padding.

    Args:
        lengths: (b,) whole numbers.
    """

    lengths: Tensor

    def bind(
        self, num_queries: int, num_keys: int, device: torch.device | None = None
    ) -> Predicate:
        lengths = self.lengths.to(device)
        check_shape("lengths", lengths, "b")
        return lambda b, h, i, j: j < lengths[b]

    def over_keys(
        self, num_keys: int, device: torch.device | None = None
    ) -> Bool[Tensor, "b {num_keys}"]:
        """The mask over so many keys."""
        check_shape("lengths", self.lengths, "b")
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

    def bind(
        self, num_queries: int, num_keys: int, device: torch.device | None = None
    ) -> Predicate:
        layout = torch.as_tensor(self.layout, device=device).bool()
        needed = (-(-num_queries // self.size), -(-num_keys // self.size))
        if layout.shape[-2] < needed[0] or layout.shape[-1] < needed[1]:
            raise ValueError(
                f"block_sparse has a layout of {tuple(layout.shape[-2:])} blocks of {self.size}; "
                f"{num_queries} queries and {num_keys} keys need {needed}"
            )
        if layout.dim() == 3:
            return lambda b, h, i, j: layout[h, i // self.size, j // self.size]
        return lambda b, h, i, j: layout[i // self.size, j // self.size]


@dataclass(frozen=True)
class Local2d(Pattern):
    """The size × size neighbourhood of each element of a picture (Ramachandran et al. 2019, §3.1).

    Args:
        grid: (height, width); queries and keys are its elements row by row.
        size: k; odd.
        border: "mask" leaves out what lies past the edge; "zero_pad" reads zeros there, which take
            their share of the weights.
    """

    grid: Sequence[int] | None = None
    size: int = 7
    border: str = "mask"

    is_sparse = True

    def __post_init__(self) -> None:
        require_grid("pattern=local2d", self.grid)
        if self.size % 2 == 0:
            raise ValueError(f"local2d has size={self.size}: it must be odd")
        if self.border not in ("mask", "zero_pad"):
            raise ValueError(f"border={self.border!r} must be 'mask' or 'zero_pad'")

    @property
    def extra_keys(self) -> int:  # type: ignore[override]
        grid = require_grid("pattern=local2d", self.grid)
        return rim_size(grid, self.size // 2) if self.border == "zero_pad" else 0

    def bind(
        self, num_queries: int, num_keys: int, device: torch.device | None = None
    ) -> Predicate:
        grid = require_grid("pattern=local2d", self.grid)
        check_grid("pattern=local2d", grid, num_queries, num_keys)
        reach = self.size // 2
        cells = coordinates(grid, reach, device)

        @no_type_check
        def keep(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return ((cells[i] - cells[j]).abs() <= reach).all(-1)

        return keep
