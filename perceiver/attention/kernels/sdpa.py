"""torch's fused scaled-dot-product attention, for scores that fold into a dot product."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from perceiver.attention.kernels.blocked import blocked, pays
from perceiver.attention.kernels.cost import projecting, projections
from perceiver.attention.kernels.kernel import Kernel, Result, name_of
from perceiver.attention.kernels.problem import Problem
from perceiver.attention.normalisers import Softmax
from perceiver.attention.scores.pairwise import DotProductScore
from perceiver.ops.matmul import differs_by_function, own_operators_serve


def _mask(problem: Problem, keep: Tensor | None, key_bias: Tensor | None) -> Tensor | None:
    """The mask and biases as the one tensor that SDPA takes; boolean where there is no bias."""
    bias = problem.bias()
    if key_bias is not None:
        key_bias = key_bias[..., None, :]
        bias = key_bias if bias is None else bias + key_bias
    if bias is None:
        return keep
    bias = bias.to(problem.q.dtype)
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


def _blocks_pay(problem: Problem) -> bool:
    """Whether our own kernel takes less time."""
    heads = problem.heads
    return (
        own_operators_serve()  # where they do not, sizes may be symbols
        and problem.device.type == "cpu"
        and problem.dropout == 0
        and pays(
            heads.num_heads,
            problem.num_queries,
            problem.num_keys,
            (heads.key_width, heads.value_width),
            is_half=problem.is_half,
        )
    )


def unlike_softmax_of_a_dot(problem: Problem) -> str:
    """Why fused kernels cannot serve, naming the axis; empty if they can."""
    if problem.need_weights:
        return "weights: it never forms them (need_weights=True)"
    if not isinstance(problem.score, DotProductScore):
        return f"score: {name_of(problem.score)} is not a dot product"
    if not isinstance(problem.normaliser, Softmax):
        return f"normaliser: {name_of(problem.normaliser)} is not softmax"
    if problem.position.has_read:
        return f"position: {name_of(problem.position)} adds a term to the values"
    if problem.pattern.has_weight_factor:
        return "pattern: LuongLocal multiplies the weights"
    if problem.heads.mixes:
        return "heads: talking heads mix weights"
    return ""


class SDPA(Kernel):
    """Softmax attention without the (q, k) matrix; empty rows read zeros, as in `dense`."""

    name = "sdpa"

    def refuses(self, problem: Problem) -> str:
        if obstacle := unlike_softmax_of_a_dot(problem):
            return obstacle
        if problem.softcap is not None:
            return "score: a softcap bends the scores"
        if problem.normaliser.sink_logit() is not None:
            return "normaliser: softmax with a sink needs the log-sum-exp"
        return ""

    def cost(self, problem: Problem) -> int | float:
        # With dropout torch takes a path several times slower than the dense kernel; its fused
        # kernels have no rules for torch.func.
        if problem.dropout > 0 or differs_by_function():
            return math.inf
        widths = problem.heads.key_width, problem.heads.value_width
        scores = problem.num_scores / 2 if _is_causal(problem) else problem.num_scores
        if problem.device.type != "cpu":
            return projecting(problem) + scores * sum(widths)
        # Torch's kernel pads heads to one width, ours does not; in half precision torch's leaves
        # about half of a CPU unused.
        width = sum(widths) if _blocks_pay(problem) else 2 * max(widths)
        return projecting(problem) + scores * width * (2 if problem.is_half else 1)

    def holds(self, problem: Problem) -> int:
        return projections(problem)

    def run(self, problem: Problem) -> Result:
        return sdpa(problem)


def _is_causal(problem: Problem) -> bool:
    """Whether torch's own causal mask serves, which takes no memory.

    It refuses a mask or a bias beside it, and for other numbers of queries and keys it is aligned
    at the top left.
    """
    return (
        problem.is_causal
        and problem.context is problem.query
        and problem.keep is None
        and not problem.num_extra
        and not problem.has_bias
    )


def sdpa(problem: Problem) -> Result:
    """See `SDPA`."""
    assert isinstance(problem.score, DotProductScore), "`refuses` admits no other"
    folded = problem.score.fold(problem.q, problem.k)
    is_causal = _is_causal(problem) and folded.key_bias is None
    keep, empty = None if is_causal else problem.seen(), None
    if keep is not None:
        # Not every device's kernel gives zeros for a row that keeps nothing: such a row keeps
        # everything here, and what it reads is set to zero.
        empty = ~keep.any(-1, keepdim=True)
        keep = keep | empty
    mask, scale = _mask(problem, keep, folded.key_bias), float(folded.scale)
    is_boolean = mask is None or mask.dtype == torch.bool
    if not is_causal and is_boolean and _blocks_pay(problem):
        read = blocked(folded.query, folded.key, problem.v, keep=mask, scale=scale)
    else:
        value_width = problem.v.shape[-1]
        width = fused_width(folded.query.shape[-1], value_width, folded.query.device.type)
        read = F.scaled_dot_product_attention(
            _padded(folded.query, width),
            _padded(folded.key, width),
            _padded(problem.v, width),
            attn_mask=mask,
            dropout_p=problem.dropout,
            is_causal=is_causal,
            scale=scale,
        )[..., :value_width]
    return Result(read if empty is None else read.masked_fill(empty, 0.0), empty=empty)
