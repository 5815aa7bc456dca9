"""torch's fused scaled-dot-product attention, for scores that fold into a dot product."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from perceiver.attention.kernels.problem import Problem, Result


def _additive_mask(problem: Problem, key_bias: Tensor | None) -> Tensor | None:
    """Mask and biases as the one tensor that SDPA takes; boolean where there is no bias."""
    keep, bias = problem.keep(), problem.bias()
    if key_bias is not None:
        key_bias = key_bias[..., None, :]
        bias = key_bias if bias is None else bias + key_bias
    if bias is None:
        return keep
    bias = bias.to(problem.query.dtype)
    return bias if keep is None else bias.masked_fill(~keep, float("-inf"))


def sdpa(problem: Problem) -> Result:
    """Softmax attention without the (q, k) matrix; empty rows read zeros, as in `dense`."""
    folded = problem.score.fold(problem.query, problem.key)
    assert folded is not None, "select_kernel admits foldable scores only"
    read = F.scaled_dot_product_attention(
        folded.query,
        folded.key,
        problem.value,
        attn_mask=_additive_mask(problem, folded.key_bias),
        dropout_p=problem.dropout,
        scale=float(folded.scale),
    )
    return Result(read)
