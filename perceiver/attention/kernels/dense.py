"""The dense kernel: the definition that every other kernel equals."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from perceiver.attention.kernels.cost import projecting, projections
from perceiver.attention.kernels.kernel import Kernel, Result
from perceiver.attention.kernels.problem import ALL, Problem
from perceiver.attention.normalisers import Normalised


class Dense(Kernel):
    """Scores, weights and read, each spelled out."""

    name = "dense"

    def refuses(self, problem: Problem) -> str:
        return ""

    def cost(self, problem: Problem) -> int | float:
        heads, score = problem.heads, problem.score
        width = max(heads.query_width, score.width) + heads.value_width
        return projecting(problem) + problem.num_scores * width

    def holds(self, problem: Problem) -> int:
        return projections(problem) + 2 * problem.num_scores * problem.score.width

    def run(self, problem: Problem) -> Result:
        return dense(problem)


def dense(problem: Problem, rows: slice = ALL) -> Result:
    """The attention of all queries or some."""

    def normalise(scores: Tensor, keep: Tensor | None) -> Normalised:
        scores = problem.adjusted(scores, rows)
        normalised = problem.normaliser(scores, keep)
        if not problem.need_weights:
            return normalised
        return normalised._replace(lse=problem.normaliser.lse(scores, keep))

    keep = problem.seen(rows)
    normalised = problem.score.weigh(problem.q[:, :, rows], problem.k, normalise, keep)
    weights = problem.heads.mix_weights(normalised.weights)
    if problem.weight_factor is not None:
        weights = weights * problem.weight_factor[:, :, rows].to(weights.dtype)
    dropped = F.dropout(weights, problem.dropout, training=bool(problem.dropout > 0))
    read = _read(problem, dropped, rows)
    empty = None
    if keep is not None:
        empty = ~keep.any(-1, keepdim=True).expand(-1, -1, read.shape[2], -1)
    return Result(read, weights, *normalised[1:], empty=empty)


def _read(problem: Problem, weights: Tensor, rows: slice) -> Tensor:
    read = weights @ problem.v
    if not problem.position.has_read:
        return read
    positioned = problem.num_positioned
    term = problem.position.read(
        weights[..., :positioned],
        problem.query_positions[rows],
        problem.columns[:positioned],
    )
    return read if term is None else read + term
