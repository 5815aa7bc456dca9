"""Patterns that follow from where queries and keys stand: windows, blocks, neighbourhoods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import no_type_check

import torch
from torch import Tensor

from perceiver.attention.patterns.grids import check_grid, coordinates, padding_size, require_grid
from perceiver.attention.patterns.pattern import Pattern, Predicate
from perceiver.ops.checks import check_sizes


class Full(Pattern):
    """Every key."""

    def __and__(self, other: Pattern) -> Pattern:
        return other

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
    """p_i − left ≤ j ≤ p_i + right (Beltagy et al. 2020, 3.1, with left = right = w/2).

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
    """|p_i − j| ≤ window · dilation and a multiple of it (Beltagy et al. 2020, 3.1)."""

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

    Hassani et al. 2023, "Neighborhood attention transformer", 3.1.
    """

    size: int

    is_sparse = True

    def __post_init__(self) -> None:
        check_sizes(size=self.size)

    def bind(
        self, num_queries: int, num_keys: int, device: torch.device | None = None
    ) -> Predicate:
        shift = num_keys - num_queries
        # A tensor: FlexAttention is compiled for numbers.
        last = torch.full((), max(num_keys - self.size, 0), device=device)

        @no_type_check
        def keep(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            start = torch.minimum((i + shift - self.size // 2).clamp_min(0), last)
            return (j >= start) & (j < start + self.size)

        return keep


@dataclass(frozen=True)
class Global(Pattern):
    """p_i or j is one of `indices`: they read everything, and everything reads them.

    The global tokens of Longformer (Beltagy et al. 2020, 3.1): `Window(…) | Global(…)`.
    """

    indices: Sequence[int]

    is_sparse = True

    def __post_init__(self) -> None:
        if isinstance(self.indices, int):
            raise ValueError(f"global has indices={self.indices}: give a list, as in [0]")

    def bind(
        self, num_queries: int, num_keys: int, device: torch.device | None = None
    ) -> Predicate:
        shift = num_keys - num_queries
        chosen = [index for index in self.indices if 0 <= index < num_keys]
        # As long as it has to be, and one that is not: FlexAttention is compiled for its length.
        end = max(chosen, default=-1) + 1
        is_global = torch.zeros(end + 1, dtype=torch.bool)
        is_global[chosen] = True
        is_global = is_global.to(device)

        @no_type_check
        def keep(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            p = i + shift
            of_query = is_global[p.clamp(0, end)] & (p >= 0)
            return of_query | is_global[j.clamp_max(end)]

        return keep


@dataclass(frozen=True)
class Local2d(Pattern):
    """The size × size neighbourhood of each element of a picture (Ramachandran et al. 2019, 3.1).

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
        if self.size < 1 or self.size % 2 == 0:
            raise ValueError(f"local2d has size={self.size}: it must be odd")
        if self.border not in ("mask", "zero_pad"):
            raise ValueError(f"border={self.border!r} must be 'mask' or 'zero_pad'")

    @property
    def padding_keys(self) -> int:  # type: ignore[override]
        grid = require_grid("pattern=local2d", self.grid)
        return padding_size(grid, self.size // 2) if self.border == "zero_pad" else 0

    def check(
        self, num_queries: int, num_keys: int, batch: int | None = None, heads: int | None = None
    ) -> None:
        grid = require_grid("pattern=local2d", self.grid)
        check_grid("pattern=local2d", grid, num_queries, num_keys)

    def bind(
        self, num_queries: int, num_keys: int, device: torch.device | None = None
    ) -> Predicate:
        self.check(num_queries, num_keys)
        grid, reach = require_grid("pattern=local2d", self.grid), self.size // 2
        cells = coordinates(grid, reach, device)

        @no_type_check
        def keep(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return ((cells[i] - cells[j]).abs() <= reach).all(-1)

        return keep
