"""What a kernel is given: projected tensors, the axes, and the mask of any part of the scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, no_type_check

import torch
import torch.nn.functional as F
from torch import Tensor

from perceiver.attention.heads.qkv import Heads
from perceiver.attention.normalisers import Normalised
from perceiver.attention.patterns import Predicate, evaluate
from perceiver.attention.positions.position import Position
from perceiver.attention.scores.pairwise import Score
from perceiver.shapes import Bool, Float

ALL = slice(None)


class Result(NamedTuple):
    """What a kernel returns.

    Args:
        read: (b, h, q, d) what each head reads.
        weights: (b, h, q, k), if they were formed.
        lse, log_prob, entropy: what the normaliser knows besides.
        empty: (#b, #h, #q, 1) bool, True for queries that may attend to nothing; None = no query.
    """

    read: Tensor
    weights: Tensor | None = None
    lse: Tensor | None = None
    log_prob: Tensor | None = None
    entropy: Tensor | None = None
    empty: Tensor | None = None


def unseeing(lse: Float[Tensor, "b h q"]) -> Bool[Tensor, "b h q 1"]:
    """Which queries keep nothing, by the log-sum-exp of their scores."""
    return lse.isneginf()[..., None]


@no_type_check
def softcapped(scores: Tensor, softcap: float | None) -> Tensor:
    """c tanh(s / c): scores that never pass ±c (Gemma Team 2024, 2)."""
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def sliced(mask: Tensor, rows: slice, columns: slice) -> Tensor:
    """Part of a mask; dimensions of size 1 stand for all and stay."""
    rows = ALL if mask.shape[2] == 1 else rows
    columns = ALL if mask.shape[3] == 1 else columns
    return mask[:, :, rows, columns]


@dataclass(frozen=True)
class Problem:
    """One attention to compute.

    Args:
        query: (b, h, q, d), rotated.
        key: (b, h, k, d2), rotated.
        value: (b, h, k, e).
        plain_query: the queries before any rotation, for position biases.
        score, position, normaliser, heads: the axes.
        mask: bool (#b, #h, #q, #k), or None.
        predicate: the pattern as a predicate of indices, or None for all keys.
        given_bias: what the caller adds to the scores (#b, #h, #q, #k) of the context's keys.
        gain: factor on the weights (#b, #h, q, k), or None.
        softcap: c, or None.
        dropout: probability of dropping a weight.
        num_extra: keys at the end that are not of the context (registers, padding).
        num_unpositioned: how many of them have no position either.
        need_lse: whether the dense kernel gives the log-sum-exp of softmax as well.
        is_causal: whether the predicate is j ≤ i, of as many queries as keys.
    """

    query: Float[Tensor, "b h q d"]
    key: Float[Tensor, "b h k d2"]
    value: Float[Tensor, "b h k e"]
    plain_query: Float[Tensor, "b h q d"]
    score: Score
    position: Position
    normaliser: Callable[..., Normalised | Tensor]
    heads: Heads
    mask: Bool[Tensor, "#b #h #q #k"] | None = None
    predicate: Predicate | None = None
    given_bias: Float[Tensor, "#b #h #q #k3"] | None = None
    gain: Float[Tensor, "#b #h q k"] | None = None
    softcap: float | None = None
    dropout: float = 0.0
    num_extra: int = 0
    num_unpositioned: int = 0
    need_lse: bool = False
    is_causal: bool = False

    @property
    def is_masked(self) -> bool:
        """Whether a query may be left with nothing."""
        parts = self.mask, self.predicate, self.given_bias
        return any(part is not None for part in parts)

    @property
    def num_queries(self) -> int:
        return self.query.shape[2]

    @property
    def num_keys(self) -> int:
        return self.key.shape[2]

    @property
    def rows(self) -> Tensor:
        return torch.arange(self.num_queries, device=self.query.device)

    @property
    def columns(self) -> Tensor:
        return torch.arange(self.num_keys, device=self.query.device)

    @property
    def query_positions(self) -> Tensor:
        return self.rows + (self.num_keys - self.num_extra - self.num_queries)

    def keep(self, rows: slice = ALL, columns: slice = ALL) -> Bool[Tensor, "#b #h #q #k"] | None:
        """The mask of some queries and keys; None = all are kept."""
        parts = []
        if self.mask is not None:
            parts.append(sliced(self.mask, rows, columns))
        if self.predicate is not None:
            b, h = self.query.shape[:2]
            parts.append(
                evaluate(self.predicate, self.rows[rows], self.columns[columns], batch=b, heads=h)
            )
        if not parts:
            return None
        return parts[0] if len(parts) == 1 else parts[0] & parts[1]

    def seen(self, rows: slice = ALL, columns: slice = ALL) -> Bool[Tensor, "#b #h #q #k"] | None:
        """`keep`, without what the caller's bias leaves out by −∞."""
        keep, given = self.keep(rows, columns), self._given_bias(rows, columns)
        if given is None:
            return keep
        seen = given > float("-inf")
        return seen if keep is None else keep & seen

    @property
    def has_bias(self) -> bool:
        return self.position.has_bias or self.given_bias is not None

    def bias(self, rows: slice = ALL, columns: slice = ALL) -> Float[Tensor, "#b #h #q #k"] | None:
        """What positions and the caller add to the scores of some queries and keys."""
        biases = [self._position_bias(rows, columns), self._given_bias(rows, columns)]
        parts = [bias for bias in biases if bias is not None]
        return sum(parts[1:], parts[0]) if parts else None

    def _given_bias(self, rows: slice, columns: slice) -> Tensor | None:
        given = self.given_bias
        if given is None:
            return None
        if self.num_extra:
            given = F.pad(
                given.expand(-1, -1, -1, self.num_keys - self.num_extra), (0, self.num_extra)
            )
        return sliced(given, rows, columns)

    def _position_bias(self, rows: slice, columns: slice) -> Tensor | None:
        if not self.position.has_bias:
            return None
        positioned = self.columns[: self.num_keys - self.num_unpositioned][columns]
        if positioned.shape[0] == 0:  # a chunk of registers alone
            return None
        bias = self.position.bias(
            self.plain_query[:, :, rows],
            self.query_positions[rows],
            positioned,
            scale=self.score.scale_for(self.query.shape[-1]),
        )
        if bias is None or self.num_unpositioned == 0:
            return bias
        return F.pad(bias, (0, self.columns[columns].shape[0] - positioned.shape[0]))

    def scores(self, rows: slice = ALL, columns: slice = ALL) -> Float[Tensor, "b h q k"]:
        """The scores of some queries and keys: mixed, capped, biased, in that order."""
        scores = self.score(self.query[:, :, rows], self.key[:, :, columns])
        scores = softcapped(self.heads.mix_scores(scores), self.softcap)
        bias = self.bias(rows, columns)
        return scores if bias is None else scores + bias.to(scores.dtype)

    def normalise(self, scores: Tensor, keep: Tensor | None) -> Normalised:
        """The normaliser's answer, also if it is a plain function."""
        answer = self.normaliser(scores, keep)
        return Normalised(answer) if isinstance(answer, Tensor) else answer
