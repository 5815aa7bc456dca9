"""Linear attention by sums over keys: no (q, k) matrix at all (Katharopoulos et al. 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from perceiver.attention.kernels.problem import Problem, Result
from perceiver.attention.normalisers.normaliser import widen
from perceiver.ops.matmul import without_autocast
from perceiver.shapes import Bool, Float

CHUNK = 128


def linear(problem: Problem, *, is_causal: bool) -> Result:
    """o_i = φ(q_i) S_i / (φ(q_i)·z_i), S = Σ φ(k) vᵀ, z = Σ φ(k) over the kept keys (eq. 4 to 6).

    Time O((q + k) d e), state d e + d; sums in float32 at least.

    Args:
        problem: with a score that folds into non-negative features and the normaliser `sum`.
        is_causal: sums run up to p_i; else over all keys.
    """
    with without_autocast(problem.query.device):  # which would sum in half precision
        return _linear(problem, is_causal)


def _linear(problem: Problem, is_causal: bool) -> Result:
    folded = problem.score.fold(widen(problem.query), widen(problem.key))
    assert folded is not None, "select_kernel admits foldable scores only"
    query, key, value = folded.query * folded.scale, folded.key, widen(problem.value)
    if problem.mask is not None:
        key = key * key_mask(problem.mask)
    if is_causal:
        # The denominator is the numerator of a value of ones.
        ones = value.new_ones(*value.shape[:-1], 1)
        sums = _causal_sums(query, key, torch.cat([value, ones], -1))
        out, total = sums[..., :-1], sums[..., -1:]
    else:
        out, total = query @ (key.mT @ value), query @ key.sum(2)[..., None]
    # A query that sees nothing, or whose features have vanished, reads 0/1.
    read = (out / total.masked_fill(total == 0, 1.0)).to(problem.value.dtype)
    return Result(read, empty=_unseeing(problem, is_causal))


def _unseeing(problem: Problem, is_causal: bool) -> Tensor | None:
    """(#b, #h, #q, 1), which queries may attend to nothing; None = no query."""
    seen = None if problem.mask is None else problem.mask.transpose(2, 3)
    if is_causal:
        last = problem.query_positions[None, None, :, None]  # key that a query sees
        if seen is None:
            return last < 0 if problem.num_queries > problem.num_keys else None
        first = torch.where(seen, problem.columns[:, None], problem.num_keys).amin(2, keepdim=True)
        return first > last
    return None if seen is None else ~seen.any(2, keepdim=True)


def key_mask(mask: Bool[Tensor, "#b #h 1 #k"]) -> Bool[Tensor, "#b #h #k 1"]:
    """A mask over keys as a factor on them.

    Raises:
        ValueError: if the mask differs from query to query.
    """
    if mask.shape[2] != 1:
        raise ValueError(
            "kernel=linear refuses this attention; mask: it sums over keys once for all queries "
            f"and can take a mask (b, k), not one of shape {tuple(mask.shape)}; use kernel=auto"
        )
    return mask.transpose(2, 3)


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
