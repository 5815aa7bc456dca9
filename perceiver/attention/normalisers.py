"""Normalisers, axis 4 of attention: from scores to weights."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor


def softmax(
    scores: Float[Tensor, "b h q k"], keep: Bool[Tensor, "#b #h #q #k"] | None = None
) -> Float[Tensor, "b h q k"]:
    """w = exp(s) / Σ exp(s) over the kept keys; a query with no kept key gets zeros.

    Computed in float32 at least. Gradients of an empty row are zero as well.
    """
    dtype = scores.dtype
    wide = scores.float() if dtype.itemsize < 4 else scores
    if keep is None:
        return wide.softmax(-1).to(dtype)
    # An empty row would be 0/0: let it keep everything, then set its weights to zero.
    empty = ~keep.any(-1, keepdim=True)
    weights = wide.masked_fill(~(keep | empty), float("-inf")).softmax(-1)
    return weights.masked_fill(empty, 0.0).to(dtype)
