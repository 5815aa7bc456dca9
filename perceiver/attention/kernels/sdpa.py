"""torch's fused scaled-dot-product attention, for scores that fold into a dot product."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from perceiver.attention.kernels.blocked import blocked, pays
from perceiver.attention.kernels.problem import Problem, Result
from perceiver.ops.matmul import own_operators_serve


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


def fused_width(query_width: int, value_width: int, device: str) -> int:
    """The width that heads are padded to with zeros, which change nothing.

    torch's fused kernels want queries, keys and values of one width, on a GPU a multiple of 8 (the
    quickest of them up to 256, the memory-efficient one any); for others torch takes a path that
    forms all scores.
    """
    width = max(query_width, value_width)
    return width if device == "cpu" else -(-width // 8) * 8


def _padded(x: Tensor, width: int) -> Tensor:
    return x if x.shape[-1] == width else F.pad(x, (0, width - x.shape[-1]))


def _blocks_pay(problem: Problem, query: Tensor, mask: Tensor | None) -> bool:
    """Whether our own kernel takes less time."""
    widths = query.shape[-1], problem.value.shape[-1]
    is_half = query.dtype.itemsize < 4 or torch.is_autocast_enabled("cpu")
    return (
        own_operators_serve()  # where they do not, sizes may be symbols
        and query.device.type == "cpu"
        and problem.dropout == 0
        and (mask is None or mask.dtype == torch.bool)
        and pays(query.shape[1], problem.num_queries, problem.num_keys, widths, is_half=is_half)
    )


def sdpa(problem: Problem) -> Result:
    """Softmax attention without the (q, k) matrix; empty rows read zeros, as in `dense`."""
    folded = problem.score.fold(problem.query, problem.key)
    assert folded is not None, "select_kernel admits foldable scores only"
    is_plain = problem.mask is None and folded.key_bias is None and not problem.has_bias
    # torch's own causal mask takes no memory; it refuses a mask or a bias beside it.
    is_causal = problem.is_causal and is_plain
    keep, empty = None if is_causal else problem.seen(), None
    if keep is not None:
        # Not every device's kernel gives zeros for a row that keeps nothing: such a row keeps
        # everything here, and what it reads is set to zero.
        empty = ~keep.any(-1, keepdim=True)
        keep = keep | empty
    mask, scale = _mask(problem, keep, folded.key_bias), float(folded.scale)
    if not is_causal and _blocks_pay(problem, folded.query, mask):
        read = blocked(folded.query, folded.key, problem.value, keep=mask, scale=scale)
    else:
        value_width = problem.value.shape[-1]
        width = fused_width(folded.query.shape[-1], value_width, folded.query.device.type)
        read = F.scaled_dot_product_attention(
            _padded(folded.query, width),
            _padded(folded.key, width),
            _padded(problem.value, width),
            attn_mask=mask,
            dropout_p=problem.dropout,
            is_causal=is_causal,
            scale=scale,
        )[..., :value_width]
    return Result(read if empty is None else read.masked_fill(empty, 0.0), empty=empty)
