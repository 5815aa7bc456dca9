"""torch's fused scaled-dot-product attention, for scores that fold into a dot product."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from perceiver.attention.kernels.problem import Problem, Result


def _mask(problem: Problem, keep: Tensor | None, key_bias: Tensor | None) -> Tensor | None:
    """The mask and biases as the one tensor that SDPA takes; boolean where there is no bias."""
    bias = problem.bias()
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
    is_plain = problem.mask is None and folded.key_bias is None and not problem.position.has_bias
    # torch's own causal mask takes no memory; it refuses a mask or a bias beside it.
    is_causal = problem.is_causal and is_plain
    keep, empty = None if is_causal else problem.keep(), None
    if keep is not None:
        # Not every device's kernel gives zeros for a row that keeps nothing: such a row keeps
        # everything here, and what it reads is set to zero.
        empty = ~keep.any(-1, keepdim=True)
        keep = keep | empty
    read = F.scaled_dot_product_attention(
        folded.query,
        folded.key,
        problem.value,
        attn_mask=_mask(problem, keep, folded.key_bias),
        dropout_p=problem.dropout,
        is_causal=is_causal,
        scale=float(folded.scale),
    )
    return Result(read if empty is None else read.masked_fill(empty, 0.0))
