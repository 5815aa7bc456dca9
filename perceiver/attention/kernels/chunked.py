"""Attention a chunk of keys or queries at a time: memory linear in the longer side."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from perceiver.attention.kernels.dense import dense
from perceiver.attention.kernels.merge import merge, with_sink
from perceiver.attention.kernels.problem import Problem, Result, unseeing
from perceiver.attention.normalisers import Softmax, logsumexp, softmax

# Numbers of scores (times their hidden width) that a chunk holds for one head of one example.
CHUNK_NUMBERS = 1 << 19


def _chunks(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def chunked(problem: Problem, *, size: int | None = None) -> Result:
    """Dense attention in chunks; the backward pass computes each chunk's scores again.

    With softmax and at least as many keys as queries the chunks are of keys, and partial softmaxes
    are merged (unless heads mix, values have position terms or weights a gain); otherwise they are
    of queries, whose rows have nothing to do with each other.

    Args:
        problem: what to compute.
        size: keys or queries in a chunk; None = as many as keep a chunk's scores small.
    """
    over_keys = (
        isinstance(problem.normaliser, Softmax)
        and problem.num_keys >= problem.num_queries
        and not problem.heads.mixes
        and not problem.position.has_read
        and problem.gain is None
    )
    across = problem.num_queries if over_keys else problem.num_keys
    size = size or max(1, CHUNK_NUMBERS // max(1, across * problem.score.width))
    return _over_keys(problem, size) if over_keys else _over_queries(problem, size)


def _over_queries(problem: Problem, size: int) -> Result:
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


def _over_keys(problem: Problem, size: int) -> Result:
    def part(columns: slice) -> tuple[Tensor, Tensor]:
        scores, keep = problem.scores(columns=columns), problem.seen(columns=columns)
        weights = F.dropout(
            softmax(scores, keep), problem.dropout, training=bool(problem.dropout > 0)
        )
        return weights @ problem.value[:, :, columns], logsumexp(scores, keep)

    merged: tuple[Tensor, Tensor] | None = None
    for columns in _chunks(problem.num_keys, size):
        read, lse = checkpoint(part, columns, use_reentrant=False)
        read = read.to(lse.dtype)
        merged = (read, lse) if merged is None else merge(merged, (read, lse))
    if merged is None:
        return dense(problem)
    read, lse = merged
    assert isinstance(problem.normaliser, Softmax)
    sink = problem.normaliser.sink_logit()
    if sink is not None:
        read = with_sink(read, lse, sink)
    empty = unseeing(lse) if problem.is_masked else None
    return Result(read.to(problem.value.dtype), lse=lse, empty=empty)
