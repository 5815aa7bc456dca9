"""FlexAttention: fused attention that skips the blocks a pattern leaves out; for GPUs."""

from __future__ import annotations

from functools import cache
from typing import Any, no_type_check

import torch
from torch import Tensor

from perceiver.attention.kernels.merge import with_sink
from perceiver.attention.kernels.problem import Problem, Result, softcapped, unseeing
from perceiver.attention.normalisers import Softmax
from perceiver.attention.patterns import Pattern


def block_mask(
    pattern: Pattern,
    num_queries: int,
    num_keys: int,
    *,
    batch: int | None = None,
    heads: int | None = None,
    device: torch.device | str = "cpu",
) -> Any:
    """FlexAttention's BlockMask of a pattern, from the predicate that the dense mask is made of.

    Args:
        pattern: the pattern.
        num_queries: q.
        num_keys: k.
        batch: examples, if the pattern tells them apart.
        heads: heads, if the pattern tells them apart.
        device: where the mask lives.
    """
    # Imported when used: it takes torch seconds.
    from torch.nn.attention.flex_attention import create_block_mask

    device = torch.device(device)
    predicate = pattern.bind(num_queries, num_keys, device)
    keys = num_keys + pattern.extra_keys
    return create_block_mask(predicate, batch, heads, num_queries, keys, device=device)


@cache
def _function(device: str) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention if device == "cpu" else torch.compile(flex_attention, dynamic=False)


def _block_mask(problem: Problem) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    mask, predicate = problem.mask, problem.predicate
    if mask is None and predicate is None:
        return None

    @no_type_check
    def keep(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        kept = i >= 0
        if mask is not None:
            # Dimensions of size 1 stand for all.
            axes = zip((b, h, i, j), mask.shape, strict=True)
            at = (axis if size > 1 else axis * 0 for axis, size in axes)
            kept = kept & mask[tuple(at)]
        return kept if predicate is None else kept & predicate(b, h, i, j)

    # Making it looks at every pair: once for all examples and heads that see alike.
    alike = problem.keep(slice(0, 1), slice(0, 1))
    assert alike is not None
    b, h = (size if size > 1 else None for size in alike.shape[:2])
    return create_block_mask(
        keep, b, h, problem.num_queries, problem.num_keys, device=problem.query.device
    )


def flex(problem: Problem) -> Result:
    """Softmax attention of scores that fold; biases and soft caps are applied as scores are made.

    Raises:
        ValueError: for training on a CPU: torch has no backward for it there.
    """
    query, on_cpu = problem.query, problem.query.device.type == "cpu"
    tensors = (query, problem.key, problem.value)
    if on_cpu and torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        raise ValueError(
            "kernel=flex has no backward on a CPU: train on a GPU or with kernel=auto, "
            "or run under torch.no_grad()"
        )
    folded = problem.score.fold(query, problem.key)
    assert folded is not None, "select_kernel admits foldable scores only"
    bias, softcap = problem.bias(), problem.softcap
    key_bias, query_bias = folded.key_bias, folded.query_bias
    if bias is not None:
        bias = bias.expand(*query.shape[:3], problem.num_keys)

    # Not type-checked in tests, as it is traced.
    @no_type_check
    def modify(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        if key_bias is not None:
            score = score + key_bias[b, h, j]
        if query_bias is not None:
            score = score + query_bias[b, h, i]
        score = softcapped(score, softcap)
        return score if bias is None else score + bias[b, h, i, j]

    modified = bias is not None or key_bias is not None or softcap is not None
    read, lse = _function(query.device.type)(
        folded.query,
        folded.key,
        problem.value,
        score_mod=modify if modified else None,
        block_mask=_block_mask(problem),
        scale=float(folded.scale),
        return_lse=True,
    )
    assert isinstance(problem.normaliser, Softmax)
    sink = problem.normaliser.sink_logit()
    empty = unseeing(lse) if problem.is_masked else None
    return Result(read if sink is None else with_sink(read, lse, sink), lse=lse, empty=empty)
