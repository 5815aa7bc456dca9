"""Linear attention by sums over keys: no (q, k) matrix at all (Katharopoulos et al. 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from perceiver.attention.kernels.cost import projecting, projections
from perceiver.attention.kernels.kernel import Kernel, Result, name_of
from perceiver.attention.kernels.problem import Problem, Projected
from perceiver.attention.normalisers import Sum
from perceiver.attention.normalisers.normaliser import widen
from perceiver.attention.scores.pairwise import DotProductScore
from perceiver.ops.matmul import without_autocast
from perceiver.shapes import Float

CHUNK = 128


class Linear(Kernel):
    """o_i = φ(q_i) S_i / (φ(q_i)·z_i), S = Σ φ(k) vᵀ, z = Σ φ(k) over the kept keys (eq. 4 to 6).

    Causal sums run up to p_i. Time O((q + k) d e), state d e + d; sums in float32 at least.
    """

    name = "linear"

    def refuses(self, problem: Problem) -> str:
        if problem.need_weights:
            return "weights: it never forms them (need_weights=True)"
        if not (isinstance(problem.score, DotProductScore) and problem.score.is_positive):
            return f"score: {name_of(problem.score)} is not feature_dot"
        if not isinstance(problem.normaliser, Sum):
            return f"normaliser: {name_of(problem.normaliser)} is not sum"
        if problem.position.has_bias or problem.position.has_read:
            return f"position: {name_of(problem.position)} adds to scores or values"
        if not (problem.is_full or problem.is_causal):
            return f"pattern: {name_of(problem.pattern)} is neither full nor causal"
        if problem.keep is not None and problem.keep.shape[2] != 1:
            return "mask: it differs from query to query, and keys are summed once for all"
        if problem.given_bias is not None:
            return "bias: there are no scores to add it to"
        if problem.heads.mixes or problem.heads.extra_keys:
            return "heads: talking heads and registers need scores"
        if problem.softcap is not None:
            return "score: a softcap bends the scores"
        if problem.dropout > 0:
            return "dropout: there are no weights to drop"
        return ""

    def cost(self, problem: Problem) -> int | float:
        heads = problem.heads
        elements = problem.batch * heads.num_heads * (problem.num_queries + problem.num_keys)
        return projecting(problem) + elements * heads.query_width * heads.value_width

    def holds(self, problem: Problem) -> int:
        return projections(problem)

    def run(self, problem: Problem) -> Result:
        projected = problem.projected  # in the precision of autocast, sums are not
        with without_autocast(problem.device):
            return _linear(problem, projected)


def _linear(problem: Problem, projected: Projected) -> Result:
    assert isinstance(problem.score, DotProductScore), "`refuses` admits no other"
    folded = problem.score.fold(widen(projected.q), widen(projected.k))
    query, key, value = folded.query * folded.scale, folded.key, widen(projected.v)
    if problem.keep is not None:
        key = key * problem.keep.transpose(2, 3)
    if problem.is_causal:
        # The denominator is the numerator of a value of ones.
        ones = value.new_ones(*value.shape[:-1], 1)
        sums = _causal_sums(query, key, torch.cat([value, ones], -1))
        out, total = sums[..., :-1], sums[..., -1:]
    else:
        out, total = query @ (key.mT @ value), query @ key.sum(2)[..., None]
    # A query that sees nothing, or whose features have vanished, reads 0/1.
    read = (out / total.masked_fill(total == 0, 1.0)).to(projected.v.dtype)
    return Result(read, empty=_empty(problem))


def _empty(problem: Problem) -> Tensor | None:
    """(#b, #h, #q, 1), which queries may attend to nothing; None = no query."""
    seen = None if problem.keep is None else problem.keep.transpose(2, 3)
    if problem.is_causal:
        last = problem.query_positions[None, None, :, None]  # key that a query sees
        if seen is None:
            return last < 0 if problem.num_queries > problem.num_keys else None
        first = torch.where(seen, problem.columns[:, None], problem.num_keys).amin(2, keepdim=True)
        return first > last
    return None if seen is None else ~seen.any(2, keepdim=True)


def _causal_sums(
    query: Float[Tensor, "b h q d"], key: Float[Tensor, "b h k d"], value: Float[Tensor, "b h k e"]
) -> Float[Tensor, "b h q e"]:
    """Σ_{j ≤ p_i} (q_i·k_j) v_j, chunk by chunk with a running Σ k vᵀ."""
    num_queries, num_keys = query.shape[2], key.shape[2]
    # Queries before the first key see nothing; keys before the first query are seen by all.
    query = query[:, :, max(num_queries - num_keys, 0) :]
    past = num_keys - query.shape[2]
    state = key[:, :, :past].mT @ value[:, :, :past]
    parts = []
    for start in range(0, query.shape[2], CHUNK):
        q = query[:, :, start : start + CHUNK]
        span = slice(past + start, past + start + q.shape[2])
        k, v = key[:, :, span], value[:, :, span]
        parts.append(q @ state + (q @ k.mT).tril() @ v)
        state = state + k.mT @ v
    sums = torch.cat(parts, 2) if parts else query @ state
    return F.pad(sums, (0, 0, num_queries - sums.shape[2], 0))
