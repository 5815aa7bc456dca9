"""Attention a chunk of keys or queries at a time: memory linear in the longer side."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from perceiver.attention.kernels.cost import projections
from perceiver.attention.kernels.dense import Dense, dense
from perceiver.attention.kernels.kernel import Kernel, Result, fully_masked, name_of
from perceiver.attention.kernels.merge import merge, with_sink
from perceiver.attention.kernels.problem import ALL, Problem
from perceiver.attention.normalisers import Reinforce, Softmax, logsumexp, softmax
from perceiver.ops.matmul import differs_by_function

# Numbers of scores (times their hidden width) that a chunk holds for one head of one example.
CHUNK_NUMBERS = 1 << 19


def _chunks(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


class Chunked(Kernel):
    """Dense attention in chunks; the backward pass computes each chunk's scores again.

    With softmax and at least as many keys as queries the chunks are of keys, and partial softmaxes
    are merged (unless heads mix, values have position terms or weights a factor); otherwise they
    are of queries, whose rows have nothing to do with each other.
    """

    name = "chunked"

    def refuses(self, problem: Problem) -> str:
        if problem.need_weights:
            return "weights: it never holds all of them (need_weights=True)"
        if problem.score.is_sequential:
            return f"score: {name_of(problem.score)} takes the queries one after the other"
        if isinstance(problem.normaliser, Reinforce):
            return "normaliser: Reinforce draws once an example, not once a chunk"
        return ""

    def cost(self, problem: Problem) -> int | float:
        # Torch's checkpoints, which compute again, have no rules for torch.func.
        return math.inf if differs_by_function() else 4 / 3 * Dense().cost(problem)

    def holds(self, problem: Problem) -> int:
        return projections(problem)

    def run(self, problem: Problem) -> Result:
        across = problem.num_queries if _over_keys(problem) else problem.num_keys
        size = max(1, CHUNK_NUMBERS // max(1, across * problem.score.width))
        return chunked(problem, size)


def chunked(problem: Problem, size: int) -> Result:
    """Attention of so many keys or queries at a time."""
    # Made here, since a checkpoint would miss in its second pass what the first left behind.
    _ = problem.projected, problem.visible, problem.weight_factor
    return _by_keys(problem, size) if _over_keys(problem) else _by_queries(problem, size)


def _over_keys(problem: Problem) -> bool:
    """Whether the chunks are of keys."""
    return (
        isinstance(problem.normaliser, Softmax)
        and problem.num_keys >= problem.num_queries
        and not problem.heads.mixes
        and not problem.position.has_read
        and problem.weight_factor is None
    )


def _by_queries(problem: Problem, size: int) -> Result:
    def part(rows: slice) -> Result:
        return dense(problem, rows)._replace(weights=None)

    parts = [
        checkpoint(part, rows, use_reentrant=False) for rows in _chunks(problem.num_queries, size)
    ]
    if not parts:
        return dense(problem)
    joined = [
        None if pieces[0] is None else torch.cat(pieces, 2) for pieces in zip(*parts, strict=True)
    ]
    read = joined[0]
    assert read is not None
    return Result(read, *joined[1:])


def _by_keys(problem: Problem, size: int) -> Result:
    def part(columns: slice) -> tuple[Tensor, Tensor]:
        scores = problem.score.of_columns(problem.q, problem.k, columns)
        scores, keep = problem.adjusted(scores, ALL, columns), problem.seen(ALL, columns)
        weights = F.dropout(
            softmax(scores, keep), problem.dropout, training=bool(problem.dropout > 0)
        )
        return weights @ problem.v[:, :, columns], logsumexp(scores, keep)

    merged: tuple[Tensor, Tensor] | None = None
    for columns in _chunks(problem.num_keys, size):
        read, lse = checkpoint(part, columns, use_reentrant=False)
        read = read.to(lse.dtype)
        merged = (read, lse) if merged is None else merge(merged, (read, lse))
    if merged is None:
        return dense(problem)
    read, lse = merged
    sink = problem.normaliser.sink_logit()
    if sink is not None:
        read = with_sink(read, lse, sink)
    empty = fully_masked(lse) if problem.is_masked else None
    return Result(read.to(problem.v.dtype), lse=lse, empty=empty)
