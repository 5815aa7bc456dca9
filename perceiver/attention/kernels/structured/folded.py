"""The kernels without keys and values: projections are folded into queries and results."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from perceiver.attention.context import Context, Scaled, as_context
from perceiver.attention.heads.qkv import Heads
from perceiver.attention.kernels.cost import joining
from perceiver.attention.kernels.kernel import Kernel, Result, fully_masked, name_of
from perceiver.attention.kernels.merge import merge, with_sink
from perceiver.attention.kernels.problem import Problem
from perceiver.attention.kernels.structured.attend import attend
from perceiver.attention.kernels.structured.tokens import CHUNK_LINES
from perceiver.attention.normalisers import Normaliser, Softmax
from perceiver.attention.normalisers.normaliser import widen
from perceiver.attention.positions.position import NoPosition
from perceiver.attention.scores.pairwise import LinearScore
from perceiver.ops.matmul import differs_by_function, without_autocast
from perceiver.shapes import Float
from perceiver.types import Segment

# Multiply-adds that the passes over tokens cost at least: what a small attention takes in calls.
LEAST_COST = 1 << 25
# Channels of a token beside its content: −ρ μ, ρ, and whether it may be attended to.
SCALARS = 3


class Folded(Kernel):
    """Softmax attention that reads the tokens themselves: neither keys nor values ever exist."""

    name = "folded"

    def refuses(self, problem: Problem) -> str:
        if problem.need_weights:
            return "weights: it never holds all of them (need_weights=True)"
        if not isinstance(problem.score, LinearScore):
            return f"score: {name_of(problem.score)} is not linear in the keys"
        if not isinstance(problem.normaliser, Softmax):
            return f"normaliser: {name_of(problem.normaliser)} is not softmax"
        if not isinstance(problem.position, NoPosition):
            return f"position: {name_of(problem.position)} tells keys apart after their projection"
        if not problem.is_full:
            return f"pattern: {name_of(problem.pattern)} is not full"
        if not problem.heads.folds:
            heads = name_of(problem.heads)
            return f"heads: what {heads} makes keys of is not linear in the context"
        if problem.keep is not None and problem.keep.shape[1:3] != (1, 1):
            return "mask: it differs from query to query, and tokens are masked for all at once"
        if problem.given_bias is not None:
            return "bias: tokens are scored for all queries and heads at once"
        if problem.softcap is not None:
            return "score: a softcap bends the scores"
        if problem.dropout > 0:
            return "dropout: it never holds the weights"
        return ""

    def cost(self, problem: Problem) -> int | float:
        # On GPUs nobody has measured it; under torch.func there are no rules for it.
        if problem.device.type != "cpu" or differs_by_function():
            return math.inf
        rows = problem.heads.num_heads * problem.num_queries
        return max(LEAST_COST, 2 * rows * self._numbers(problem) + self._moved(problem))

    def holds(self, problem: Problem) -> int:
        return joining(problem) + math.prod(problem.context.shape)

    def _numbers(self, problem: Problem) -> int:
        """Numbers of all tokens that a row of queries is multiplied with."""
        b, tokens, channels = problem.context.shape
        return b * tokens * (channels + SCALARS)

    def _moved(self, problem: Problem) -> int:
        """Numbers that are written to set positions beside their content."""
        apart = any(segment.axes for segment in _segments(problem))
        return math.prod(problem.context.shape) if apart else 0

    def run(self, problem: Problem) -> Result:
        context = problem.context
        if isinstance(context, Tensor):
            return _attend(problem, as_context(context, problem.keep))
        return _attend(problem, context.joined())


class Separable(Folded):
    """The same, with the positions of a segment kept apart from its content."""

    name = "separable"

    def refuses(self, problem: Problem) -> str:
        if isinstance(problem.context, Tensor):
            return "context: a tensor has no positions beside its content; use kernel=folded"
        return super().refuses(problem)

    def holds(self, problem: Problem) -> int:
        content = (segment.content for segment in _segments(problem))
        return sum(2 * b * m * (p + SCALARS) for b, m, p in (x.shape for x in content))

    def _numbers(self, problem: Problem) -> int:
        """Lines of a grid are taken a few at a time, each a number of a token."""
        total = 0
        for segment in _segments(problem):
            b, tokens, channels = segment.content.shape
            code = CHUNK_LINES if len(segment.axes) > 1 else sum(c.shape[1] for c in segment.axes)
            total += b * tokens * (channels + SCALARS + code)
        return total

    def _moved(self, problem: Problem) -> int:
        return 0

    def run(self, problem: Problem) -> Result:
        assert isinstance(problem.context, Context), "`refuses` admits no other"
        return _attend(problem, problem.context)


def _segments(problem: Problem) -> tuple[Segment, ...]:
    return problem.context.segments if isinstance(problem.context, Context) else ()


def _attend(problem: Problem, context: Context) -> Result:
    assert isinstance(problem.score, LinearScore), "`refuses` admits no other"
    return folded(
        problem.query,
        context,
        score=problem.score,
        heads=problem.heads,
        normaliser=problem.normaliser,
    )


def folded(
    query: Float[Tensor, "#b q e"],
    context: Context,
    *,
    score: LinearScore,
    heads: Heads,
    normaliser: Normaliser,
) -> Result:
    """Softmax attention that reads the byte array itself.

    With keys k = W_K (γ ⊙ x̂ + β) + b_K, x̂ the LayerNorm without its affine, a score is

        q·k = (γ ⊙ W_Kᵀ q)·x̂ + q·(W_K β + b_K),

    and what is read of the values is W_V (γ ⊙ A + β) + b_V with A = Σ w x̂: neither keys nor values
    come into being. A segment's content and positions stay apart as well; each segment's softmax is
    merged with the others' by their log-sum-exp.

    Args:
        query: as it came in; a batch of 1 serves all examples.
        context: what is attended to.
        score: linear in the keys.
        heads: projections that fold.
        normaliser: softmax, perhaps with a sink.
    """
    linear = score.fold_query(heads.queries(query))
    rows, shift = heads.fold(linear)
    num_heads, norm = rows.shape[1], context.norm
    if norm is not None and norm.bias is not None:
        shift = shift + rows @ norm.bias.to(rows.dtype)
    if norm is not None and norm.weight is not None:
        rows = rows * norm.weight.to(rows.dtype)
    rows, shift = rows.flatten(1, 2), shift.flatten(1, 2)
    merged = None
    with without_autocast(query.device):  # scores are float32 in any precision
        for segment, scaled in context.scaled():
            part = _segment(widen(rows), widen(shift), segment, scaled)
            merged = part if merged is None else merge(merged, part)
    assert merged is not None
    read, lse = (x.unflatten(1, (num_heads, -1)) for x in merged)
    read, total = read[..., :-1], read[..., -1:]
    if norm is not None and norm.weight is not None:
        read = read * norm.weight.to(read.dtype)
    if norm is not None and norm.bias is not None:
        read = read + norm.bias.to(read.dtype) * total
    dtype = linear.dtype
    values = heads.fold_values(read.to(dtype), total.to(dtype))
    sink = normaliser.sink_logit()
    if sink is not None:
        values = with_sink(values, lse, sink)
    return Result(values, lse=lse, empty=None if context.mask is None else fully_masked(lse))


def _segment(
    rows: Float[Tensor, "#b r c"],
    shift: Float[Tensor, "#b r"],
    segment: Segment,
    scaled: Scaled,
) -> tuple[Float[Tensor, "b r c1"], Float[Tensor, "b r"]]:
    """(Σ w x̂ and Σ w, log-sum-exp) of one segment."""
    widths = [segment.content.shape[-1], *(code.shape[-1] for code in segment.axes)]
    constant = segment.constant
    q_content, *q_axes, q_constant = rows.split([*widths, segment.channels - sum(widths)], dim=-1)
    ones = rows.new_zeros(rows.shape[:2]) if constant is None else q_constant @ constant.to(rows)
    query = torch.cat([q_content, torch.stack([rows.sum(-1), ones, shift], -1)], -1)
    codes = [code.to(rows) for code in segment.axes]
    if len(codes) > 1:
        terms = [q_axis @ code.mT for q_axis, code in zip(q_axes, codes, strict=True)]
        part = attend(
            query,
            scaled.content,
            rho=scaled.rho,
            query_tail=_outer_sum(terms[:-1]),
            query_columns=terms[-1],
        )
        assert part.tail is not None
        assert part.columns is not None
        sums = [*_margins(part.tail, [code.shape[0] for code in codes[:-1]]), part.columns]
        read_axes = [total @ code.to(total) for total, code in zip(sums, codes, strict=True)]
    elif codes:
        part = attend(
            query, scaled.content, rho=scaled.rho, code=segment.axes[0], query_tail=q_axes[0]
        )
        assert part.tail is not None
        read_axes = [part.tail]
    else:
        part = attend(query, scaled.content)
        read_axes = []
    content, (mean, rho, total) = (
        part.content[..., :-3],
        part.content[..., -3:].split(1, dim=-1),
    )
    read = [content, *read_axes]
    if constant is not None:
        read.append(rho * constant.to(rho))
    return torch.cat([torch.cat(read, -1) + mean, total], -1), part.lse


def _outer_sum(terms: list[Tensor]) -> Tensor:
    """Terms of several axes as one term of all their places, in row-major order."""
    total = terms[0]
    for term in terms[1:]:
        total = (total[..., None] + term[..., None, :]).flatten(-2)
    return total


def _margins(weights: Tensor, lengths: list[int]) -> list[Tensor]:
    """Sums of weights over all axes but one, for each axis."""
    grid = weights.unflatten(-1, lengths)
    axes = range(-len(lengths), 0)
    if len(lengths) == 1:
        return [grid]
    return [grid.sum([other for other in axes if other != axis]) for axis in axes]
