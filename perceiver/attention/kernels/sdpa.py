"""torch's fused scaled-dot-product attention, for scores that fold into a dot product."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from perceiver.attention.scores import Score


def sdpa(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d2"],
    value: Float[Tensor, "b h k e"],
    *,
    score: Score,
    keep: Bool[Tensor, "#b #h #q #k"] | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "b h q e"]:
    """Softmax attention without the (q, k) matrix; empty rows read zeros, as in `dense`."""
    folded = score.fold(query, key)
    assert folded is not None, "select_kernel admits foldable scores only"
    query, key, scale = folded
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=keep, dropout_p=dropout, scale=scale
    )
