"""One attention to compute: what comes in, the axes, and what kernels ask of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, no_type_check

import torch
import torch.nn.functional as F
from torch import Tensor

from perceiver.attention.context import Context
from perceiver.attention.heads.qkv import Heads
from perceiver.attention.masks import with_extra_keys
from perceiver.attention.normalisers import Normaliser
from perceiver.attention.patterns import Causal, Full, Pattern, Predicate, Sizes, evaluate
from perceiver.attention.positions.position import Position
from perceiver.attention.scores.pairwise import Score
from perceiver.shapes import Bool, Float

ALL = slice(None)


class Projected(NamedTuple):
    """Queries, keys and values in heads.

    Args:
        q: (b, h, q, d), rotated.
        k: (b, h, k, d2), rotated.
        v: (b, h, k, e).
        plain_q: the queries before any rotation, for position biases.
    """

    q: Float[Tensor, "b h q d"]
    k: Float[Tensor, "b h k d2"]
    v: Float[Tensor, "b h k e"]
    plain_q: Float[Tensor, "b h q d"]


class Visible(NamedTuple):
    """Which keys, registers and padding among them, a query may attend to; None = all.

    Args:
        mask: (#b, #h, #q, #k).
        predicate: the pattern, where it is no part of the mask.
    """

    mask: Bool[Tensor, "#b #h #q #k"] | None = None
    predicate: Predicate | None = None


@no_type_check
def softcapped(scores: Tensor, softcap: float | None) -> Tensor:
    """c tanh(s / c): scores that never pass ±c (Gemma Team 2024, 2)."""
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def sliced(mask: Tensor, rows: slice, columns: slice) -> Tensor:
    """Part of a mask; dimensions of size 1 stand for all and stay."""
    rows = ALL if mask.shape[2] == 1 else rows
    columns = ALL if mask.shape[3] == 1 else columns
    return mask[:, :, rows, columns]


@dataclass(eq=False)
class Problem:
    """One attention to compute; it projects when a kernel asks for q, k or v, and once.

    Args:
        query: (#b, q, e), as it comes in.
        context: (b, k, c), as it comes in, or segments.
        score, position, pattern, normaliser, heads: the axes; the pattern is that of this call.
        keep: the caller's mask (#b, #h, #q, #k) over the context's keys, or None.
        given_bias: what the caller adds to the scores (#b, #h, #q, #k) of these keys, or None.
        softcap: c, or None.
        dropout: probability of dropping a weight.
        need_weights: whether the weights are asked for, and the log-sum-exp of softmax.
    """

    query: Float[Tensor, "#b q e"]
    context: Tensor | Context
    score: Score
    position: Position
    pattern: Pattern
    normaliser: Normaliser
    heads: Heads
    keep: Bool[Tensor, "#b #h #q #k"] | None = None
    given_bias: Float[Tensor, "#b #h #q #k"] | None = None
    softcap: float | None = None
    dropout: float = 0.0
    need_weights: bool = False
    # Made once. Not by functools.cached_property, whose lock Dynamo does not trace.
    _projected: Projected | None = field(default=None, init=False, repr=False)
    _visible: Visible | None = field(default=None, init=False, repr=False)
    _weight_factor: Tensor | None = field(default=None, init=False, repr=False)

    # What it is about, which nothing has to be projected for.

    @property
    def device(self) -> torch.device:
        return self.query.device

    @property
    def batch(self) -> int:
        return self.context.shape[0]

    @property
    def num_queries(self) -> int:
        return self.query.shape[1]

    @property
    def num_extra(self) -> int:
        """Keys at the end that are not of the context: registers, padding."""
        return self.heads.extra_keys + self.pattern.padding_keys

    @property
    def num_keys(self) -> int:
        return self.context.shape[1] + self.num_extra

    @property
    def num_scores(self) -> int:
        return self.batch * self.heads.num_heads * self.num_queries * self.num_keys

    @property
    def is_half(self) -> bool:
        """Whether large products run in half precision."""
        dtype, device = self.query.dtype, self.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        return dtype.itemsize < 4

    @property
    def is_full(self) -> bool:
        """Whether the pattern leaves out nothing."""
        return isinstance(self.pattern, Full)

    @property
    def is_causal(self) -> bool:
        """Whether the pattern leaves out what comes later, and nothing else."""
        return isinstance(self.pattern, Causal)

    @property
    def has_bias(self) -> bool:
        return self.position.has_bias or self.given_bias is not None

    # q, k and v.

    @property
    def projected(self) -> Projected:
        if self._projected is None:
            self._projected = self._project()
        return self._projected

    def _project(self) -> Projected:
        context = self.context
        if isinstance(context, Context):
            tokens = context.tokens()
            plain_q = self.heads.queries(self.query)
            k, v = context.once(self.heads, lambda: self.heads.keys_and_values(tokens))
        else:
            plain_q, k, v = self.heads.project(self.query, context)
        # A query of all examples is projected once, then repeated without a copy.
        plain_q = plain_q.expand(self.batch, -1, -1, -1)
        keys = context.shape[1]
        q, positioned = self.position.rotate(
            plain_q, k[:, :, :keys], self.query_positions, self.columns[:keys]
        )
        k = torch.cat([positioned, k[:, :, keys:]], 2) if self.heads.extra_keys else positioned
        if padding := self.pattern.padding_keys:
            k, v = F.pad(k, (0, 0, 0, padding)), F.pad(v, (0, 0, 0, padding))
        repeats = self.heads.num_heads // k.shape[1]
        if repeats > 1:
            k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
        return Projected(q, k, v, plain_q)

    @property
    def q(self) -> Float[Tensor, "b h q d"]:
        return self.projected.q

    @property
    def k(self) -> Float[Tensor, "b h k d2"]:
        return self.projected.k

    @property
    def v(self) -> Float[Tensor, "b h k e"]:
        return self.projected.v

    # Where they stand.

    @property
    def rows(self) -> Tensor:
        return torch.arange(self.num_queries, device=self.device)

    @property
    def columns(self) -> Tensor:
        return torch.arange(self.num_keys, device=self.device)

    @property
    def query_positions(self) -> Tensor:
        return self.rows + (self.num_keys - self.num_extra - self.num_queries)

    @property
    def num_positioned(self) -> int:
        """Keys that have positions: those of the context, and padding if positions know it."""
        padding = self.pattern.padding_keys if self.position.knows_padding else 0
        return self.context.shape[1] + padding

    # Which keys a query may attend to.

    @property
    def visible(self) -> Visible:
        """Which keys may be attended to, as a mask and a predicate."""
        if self._visible is None:
            self._visible = self._look()
        return self._visible

    def _look(self) -> Visible:
        keep, given = self.keep, self.given_bias
        sizes = Sizes(
            self.batch, self.heads.num_heads, self.num_queries, self.num_keys - self.num_extra
        )
        if not self.num_extra:
            queries, keys = sizes[2:]
            pattern = None if self.is_full else self.pattern.bind(queries, keys, self.device)
            return Visible(keep, pattern)
        if given is not None:  # a query to which a bias leaves nothing sees no registers either
            finite = given > float("-inf")
            keep = finite if keep is None else keep & finite
        if keep is None and self.is_full:
            return Visible()
        registers = self.heads.extra_keys
        return Visible(with_extra_keys(keep, self.pattern, sizes, registers, self.device))

    @property
    def is_masked(self) -> bool:
        """Whether a query may be left with nothing."""
        return any(part is not None for part in (*self.visible, self.given_bias))

    def kept(self, rows: slice = ALL, columns: slice = ALL) -> Bool[Tensor, "#b #h #q #k"] | None:
        """The mask of some queries and keys; None = all are kept."""
        mask, predicate = self.visible
        keep = None if mask is None else sliced(mask, rows, columns)
        if predicate is None:
            return keep
        by_pattern = evaluate(
            predicate,
            self.rows[rows],
            self.columns[columns],
            batch=self.batch,
            heads=self.heads.num_heads,
        )
        return by_pattern if keep is None else keep & by_pattern

    def seen(self, rows: slice = ALL, columns: slice = ALL) -> Bool[Tensor, "#b #h #q #k"] | None:
        """`kept`, without what the caller's bias leaves out by −∞."""
        keep, given = self.kept(rows, columns), self._given_bias(rows, columns)
        if given is None:
            return keep
        seen = given > float("-inf")
        return seen if keep is None else keep & seen

    # Scores.

    def bias(self, rows: slice = ALL, columns: slice = ALL) -> Float[Tensor, "#b #h #q #k"] | None:
        """What positions and the caller add to the scores of some queries and keys."""
        biases = [self._position_bias(rows, columns), self._given_bias(rows, columns)]
        parts = [bias for bias in biases if bias is not None]
        return sum(parts[1:], parts[0]) if parts else None

    def _given_bias(self, rows: slice, columns: slice) -> Tensor | None:
        given = self.given_bias
        if given is not None and self.num_extra:
            given = given.expand(-1, -1, -1, self.num_keys - self.num_extra)
            given = F.pad(given, (0, self.num_extra))
        return None if given is None else sliced(given, rows, columns)

    def _position_bias(self, rows: slice, columns: slice) -> Tensor | None:
        positioned = self.columns[: self.num_positioned][columns]
        if not self.position.has_bias or positioned.shape[0] == 0:  # a chunk of registers alone
            return None
        bias = self.position.bias(
            self.projected.plain_q[:, :, rows],
            self.query_positions[rows],
            positioned,
            scale=self.score.scale_for(self.q.shape[-1]),
        )
        if bias is None or self.num_positioned == self.num_keys:
            return bias
        return F.pad(bias, (0, self.columns[columns].shape[0] - positioned.shape[0]))

    def adjusted(
        self, scores: Float[Tensor, "b h q k"], rows: slice = ALL, columns: slice = ALL
    ) -> Float[Tensor, "b h q k"]:
        """Scores of some queries and keys: mixed, capped, biased, in that order."""
        scores = softcapped(self.heads.mix_scores(scores), self.softcap)
        bias = self.bias(rows, columns)
        return scores if bias is None else scores + bias.to(scores.dtype)

    # Weights.

    @property
    def weight_factor(self) -> Float[Tensor, "#b #h q k"] | None:
        """A factor on the weights."""
        if self._weight_factor is None:
            self._weight_factor = self.pattern.weight_factor(self.num_keys)
        return self._weight_factor
