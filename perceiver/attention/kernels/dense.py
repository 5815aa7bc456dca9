"""The dense kernel: the definition that every other kernel equals."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from perceiver.attention.kernels.problem import ALL, Problem, Result
from perceiver.attention.normalisers import Normalised, Softmax, logsumexp
from perceiver.attention.scores.location import LocationAware


def _weights(problem: Problem, rows: slice, keep: Tensor | None) -> Normalised:
    if isinstance(problem.score, LocationAware):
        score, query = problem.score, problem.query[:, :, rows]
        return Normalised(score.in_sequence(query, problem.key, problem.normalise, keep))
    scores = problem.scores(rows)
    normalised = problem.normalise(scores, keep)
    if problem.need_lse and isinstance(problem.normaliser, Softmax):
        normalised = normalised._replace(lse=logsumexp(scores, keep))
    return normalised


def dense(problem: Problem, rows: slice = ALL) -> Result:
    """Scores, weights and read, each spelled out, for all queries or some."""
    keep = problem.seen(rows)
    normalised = _weights(problem, rows, keep)
    weights = problem.heads.mix_weights(normalised.weights)
    if problem.gain is not None:
        weights = weights * problem.gain[:, :, rows].to(weights.dtype)
    dropped = F.dropout(weights, problem.dropout, training=bool(problem.dropout > 0))
    read = _read(problem, dropped, rows)
    empty = None
    if keep is not None:
        empty = ~keep.any(-1, keepdim=True).expand(-1, -1, read.shape[2], -1)
    return Result(read, weights, *normalised[1:], empty=empty)


def _read(problem: Problem, weights: Tensor, rows: slice) -> Tensor:
    read = weights @ problem.value
    if not problem.position.has_read:
        return read
    positioned = problem.num_keys - problem.num_unpositioned
    term = problem.position.read(
        weights[..., :positioned],
        problem.query_positions[rows],
        problem.columns[:positioned],
    )
    return read if term is None else read + term
