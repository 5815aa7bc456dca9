"""Attention without keys and values: their projections are folded into queries and results."""

from __future__ import annotations

import torch
from torch import Tensor

from perceiver.attention.context import Context, Scaled
from perceiver.attention.heads.qkv import Heads
from perceiver.attention.kernels.merge import merge, with_sink
from perceiver.attention.kernels.problem import Result, unseeing
from perceiver.attention.kernels.structured import attend
from perceiver.attention.normalisers import Softmax
from perceiver.attention.normalisers.normaliser import widen
from perceiver.attention.scores.pairwise import Score
from perceiver.ops.matmul import without_autocast
from perceiver.shapes import Float
from perceiver.types import Segment


def folded(
    query: Float[Tensor, "#b q e"],
    context: Context,
    *,
    score: Score,
    heads: Heads,
    normaliser: Softmax,
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
    assert linear is not None, "select_kernel admits scores that are linear in the keys only"
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
    return Result(values, lse=lse, empty=None if context.mask is None else unseeing(lse))


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
