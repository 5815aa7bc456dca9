"""The interface of patterns, axis 3 of attention: which keys a query may attend to.

A pattern says for (example b, head h, query i, key j) whether j is kept. The dense mask and
FlexAttention's block mask are made from the same predicate, and `&` and `|` combine patterns.
Query i of q stands at p_i = i + (k − q): the last query at the last key.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from perceiver.shapes import Bool, Float

# Predicates are not type-checked in tests: FlexAttention counts their arguments and traces them.
Predicate = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Sizes(NamedTuple):
    """The sizes of the scores of one attention."""

    batch: int
    heads: int
    queries: int
    keys: int


class PatternMaker(ABC):
    """Base of what can stand on the axis: it makes the pattern of each call.

    `padding_keys`: keys without content that the pattern adds behind the real ones.
    """

    padding_keys = 0

    def check(
        self, num_queries: int, num_keys: int, batch: int | None = None, heads: int | None = None
    ) -> None:
        """Raises ValueError for sizes that the pattern is not made for; None = not known yet."""
        return

    def members(self) -> Iterator[PatternMaker]:
        """The patterns that this one combines; itself if it combines none."""
        yield self

    @abstractmethod
    def resolve(
        self,
        query: Float[Tensor, "#b q e"],
        sizes: Sizes,
        *,
        given: Pattern | None,
        keep: Bool[Tensor, "#b #h #q #k"] | None,
        first: int = 0,
    ) -> tuple[Pattern, Bool[Tensor, "#b #h #q #k"] | None]:
        """The pattern of one call, and the mask that stands beside it.

        Args:
            query: the queries as they come in.
            sizes: of the scores.
            given: the caller's mask, if it is a pattern.
            keep: the caller's mask, if it is a tensor.
            first: index of the first query in its sequence.
        """


class Pattern(PatternMaker):
    """Base of patterns, each of which makes itself.

    `is_sparse`: a query of a long sequence sees little, in runs that leave out whole blocks.
    `has_weight_factor`: `weight_factor` returns something.
    """

    name = ""
    is_sparse = False
    has_weight_factor = False

    def resolve(
        self,
        query: Tensor,
        sizes: Sizes,
        *,
        given: Pattern | None,
        keep: Tensor | None,
        first: int = 0,
    ) -> tuple[Pattern, Tensor | None]:
        return (self if given is None else self & given), keep

    @abstractmethod
    def bind(
        self, num_queries: int, num_keys: int, device: torch.device | None = None
    ) -> Predicate:
        """The predicate (b, h, i, j) → bool for so many queries and (real) keys."""

    @property
    def window_centre(self) -> Float[Tensor, "b q"] | None:
        """The middle of each query's window, if the queries predict it."""
        return None

    def weight_factor(self, num_keys: int) -> Float[Tensor, "#b #h q k"] | None:
        """A factor on the weights after normalisation; None = 1."""
        return None

    def over_keys(
        self, num_keys: int, device: torch.device | None = None
    ) -> Bool[Tensor, "b {num_keys}"] | None:
        """The same as a mask over keys; None if it is not the same for all queries."""
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
        columns = torch.arange(num_keys + self.padding_keys, device=device)
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
    def padding_keys(self) -> int:  # type: ignore[override]
        return max(self.first.padding_keys, self.second.padding_keys)

    def members(self) -> Iterator[PatternMaker]:
        yield from self.first.members()
        yield from self.second.members()

    @property
    def is_sparse(self) -> bool:  # type: ignore[override]
        parts = self.first.is_sparse, self.second.is_sparse
        return all(parts) if self.is_union else any(parts)

    def check(
        self, num_queries: int, num_keys: int, batch: int | None = None, heads: int | None = None
    ) -> None:
        for part in (self.first, self.second):
            part.check(num_queries, num_keys, batch, heads)

    def bind(
        self, num_queries: int, num_keys: int, device: torch.device | None = None
    ) -> Predicate:
        first, second = (
            part.bind(num_queries, num_keys, device) for part in (self.first, self.second)
        )
        if self.is_union:
            return lambda b, h, i, j: first(b, h, i, j) | second(b, h, i, j)
        return lambda b, h, i, j: first(b, h, i, j) & second(b, h, i, j)
