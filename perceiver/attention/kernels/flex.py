"""FlexAttention: fused attention that skips the blocks a pattern leaves out; for GPUs."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, no_type_check

import torch
import torch.nn.functional as F
from torch import Tensor

from perceiver.attention.kernels.cost import projections
from perceiver.attention.kernels.dense import Dense, dense
from perceiver.attention.kernels.kernel import Kernel, Result, fully_masked
from perceiver.attention.kernels.merge import with_sink
from perceiver.attention.kernels.problem import Problem, softcapped
from perceiver.attention.kernels.sdpa import unlike_softmax_of_a_dot
from perceiver.attention.patterns import Pattern
from perceiver.attention.scores.pairwise import DotProductScore

# FlexAttention is compiled for each length: past this many torch would run it unfused.
MOST_GRAPHS = 64
# Elements along a block that it skips or computes.
BLOCK = 128
# The narrowest heads that it is compiled for; narrower ones get zeros, which change nothing.
LEAST_WIDTH = 16
# Pairs of queries and keys from which skipped blocks outweigh finding them.
MANY_PAIRS = 1 << 22
# The widths of heads that FlexAttention takes on a GPU, and has room for.
WIDTHS = range(16, 257)
# Pairs that a BlockMask is made of at a time: booleans, and a few numbers for each.
MOST_PAIRS = 1 << 28


class Flex(Kernel):
    """Softmax attention that skips blocks; biases and soft caps are applied as scores are made."""

    name = "flex"

    def refuses(self, problem: Problem) -> str:
        if obstacle := unlike_softmax_of_a_dot(problem):
            return obstacle
        return "dropout: it has none on the weights" if problem.dropout > 0 else ""

    def cost(self, problem: Problem) -> int | float:
        """Half of all, where most blocks are skipped on a device that this is made for.

        Inside a graph that is being traced it would be compiled with everything around it.
        """
        heads = problem.heads
        skips_most = (
            problem.device.type == "cuda"
            and problem.query.dtype != torch.float64  # it sums in float32
            and problem.pattern.is_sparse
            and problem.num_queries * problem.num_keys >= MANY_PAIRS
            and not problem.has_bias
            and heads.query_width in WIDTHS
            and heads.value_width in WIDTHS
            and not torch.compiler.is_compiling()
        )
        return Dense().cost(problem) / 2 if skips_most else math.inf

    def holds(self, problem: Problem) -> int:
        return projections(problem)

    def run(self, problem: Problem) -> Result:
        return flex(problem)


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
    keys = num_keys + pattern.padding_keys
    return create_block_mask(predicate, batch, heads, num_queries, keys, device=device)


def compiled_length(length: int) -> int:
    """The length that FlexAttention is compiled for: four to a power of two, whole blocks.

    Batches of texts are as long as their longest. What is added is skipped, block by block. In a
    graph that is being traced lengths stay, as it is compiled with what is around it.
    """
    if torch.compiler.is_compiling():
        return length
    step = max(BLOCK, 1 << max(0, (length - 1).bit_length() - 3))
    return -(-length // step) * step


def least_width(device: torch.device) -> int:
    """The least width of heads that FlexAttention takes on a device."""
    return 0 if device.type == "cpu" else LEAST_WIDTH


def _longer(tensor: Tensor, *sizes: int) -> Tensor:
    """With zeros behind its last dimensions, up to these sizes."""
    own = tensor.shape[-len(sizes) :]
    more = [(0, size - before) for size, before in zip(sizes, own, strict=True)]
    if not any(missing for _, missing in more):
        return tensor
    return F.pad(tensor, [number for pair in reversed(more) for number in pair])


@cache
def _compiled() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def _is_compiled(device: torch.device) -> bool:
    return device.type != "cpu" and not torch.compiler.is_compiling()


def _run(*tensors: Tensor, **options: Any) -> Any:
    from torch._dynamo import config
    from torch.nn.attention.flex_attention import flex_attention

    attend: Any = flex_attention
    if not _is_compiled(tensors[0].device):
        return attend(*tensors, **options)
    with config.patch(recompile_limit=MOST_GRAPHS):
        return _compiled()(*tensors, **options)


def _block_mask(problem: Problem, num_queries: int, num_keys: int) -> Any:
    """The BlockMask of a problem that is lengthened to so many queries and keys."""
    from torch.nn.attention.flex_attention import create_block_mask

    (mask, predicate), device = problem.visible, problem.device
    is_longer = (num_queries, num_keys) != (problem.num_queries, problem.num_keys)
    if mask is None and predicate is None and not is_longer:
        return None
    if mask is not None:
        # Dimensions of size 1 stand for all.
        wanted = zip(mask.shape[2:], (num_queries, num_keys), strict=True)
        mask = _longer(mask, *(1 if own == 1 else size for own, size in wanted))
    # Where predicates look, which know real places alone. Tensors, since a graph holds for the
    # numbers that it was traced with.
    rows = torch.arange(num_queries, device=device).clamp(max=problem.num_queries - 1)
    columns = torch.arange(num_keys, device=device).clamp(max=problem.num_keys - 1)

    @no_type_check
    def keep(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        kept = i >= 0
        if mask is not None:
            axes = zip((b, h, i, j), mask.shape, strict=True)
            at = (axis if size > 1 else axis * 0 for axis, size in axes)
            kept = kept & mask[tuple(at)]
        if is_longer:
            kept = kept & (rows[i] == i) & (columns[j] == j)
            i, j = rows[i], columns[j]
        return kept if predicate is None else kept & predicate(b, h, i, j)

    # Making it looks at every pair: once for all examples and heads that see alike.
    alike = problem.kept(slice(0, 1), slice(0, 1))
    examples, heads = (1, 1) if alike is None else alike.shape[:2]
    sizes: dict[str, Any] = {"Q_LEN": num_queries, "KV_LEN": num_keys}
    sizes["H"] = heads if heads > 1 else None
    most = max(1, MOST_PAIRS // (heads * num_queries * num_keys))
    if examples <= most or torch.compiler.is_compiling():
        b = examples if examples > 1 else None
        return create_block_mask(keep, b, device=device, **sizes)
    parts = []
    for first in range(0, examples, most):

        @no_type_check
        def keep_part(b: Tensor, h: Tensor, i: Tensor, j: Tensor, first: int = first) -> Tensor:
            return keep(b + first, h, i, j)

        size = min(most, examples - first)
        parts.append(create_block_mask(keep_part, size, device=device, **sizes))
    return _joined(parts, keep, (num_queries, num_keys))


def _joined(parts: list[Any], keep: Any, lengths: tuple[int, int]) -> Any:
    """BlockMasks of some examples each as that of all, which `keep` tells."""
    from torch.nn.attention.flex_attention import BlockMask

    names = ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices")
    blocks: dict[str, Any] = {
        name: torch.cat([getattr(part, name) for part in parts]) for name in names
    }
    return BlockMask.from_kv_blocks(
        **blocks, BLOCK_SIZE=parts[0].BLOCK_SIZE, mask_mod=keep, seq_lengths=lengths
    )


def flex(problem: Problem) -> Result:
    """See `Flex`.

    Raises:
        ValueError: for training on a CPU: torch has no backward for it there.
    """
    from torch.nn.attention.flex_attention import AuxRequest

    query, on_cpu = problem.q, problem.device.type == "cpu"
    tensors = (query, problem.k, problem.v)
    if on_cpu and torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        raise ValueError(
            "kernel=flex has no backward on a CPU: train on a GPU or with kernel=auto, "
            "or run under torch.no_grad()"
        )
    if min(query.shape[0], problem.num_queries, problem.num_keys) == 0:
        return dense(problem)
    assert isinstance(problem.score, DotProductScore), "`refuses` admits no other"
    folded = problem.score.fold(query, problem.k)
    bias, softcap = problem.bias(), problem.softcap
    q, k = compiled_length(problem.num_queries), compiled_length(problem.num_keys)
    if bias is not None:
        bias = bias.expand(-1, -1, problem.num_queries, problem.num_keys)
        bias = _longer(bias, q, k).expand(*query.shape[:2], q, k)
    key_bias = None if folded.key_bias is None else _longer(folded.key_bias, k)
    query_bias = None if folded.query_bias is None else _longer(folded.query_bias, q)

    # Not type-checked in tests, as it is traced.
    @no_type_check
    def modify(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        if key_bias is not None:
            score = score + key_bias[b, h, j]
        if query_bias is not None:
            score = score + query_bias[b, h, i]
        score = softcapped(score, softcap)
        return score if bias is None else score + bias[b, h, i, j]

    least = least_width(query.device)
    modified = bias is not None or key_bias is not None or softcap is not None
    read, seen = _run(
        _longer(folded.query, q, max(least, folded.query.shape[-1])),
        _longer(folded.key, k, max(least, folded.key.shape[-1])),
        _longer(problem.v, k, max(least, problem.v.shape[-1])),
        score_mod=modify if modified else None,
        block_mask=_block_mask(problem, q, k),
        scale=float(folded.scale),
        return_aux=AuxRequest(lse=True),
    )
    read = read[:, :, : problem.num_queries, : problem.v.shape[-1]]
    lse = seen.lse[:, :, : problem.num_queries]
    sink = problem.normaliser.sink_logit()
    empty = fully_masked(lse) if problem.is_masked else None
    return Result(read if sink is None else with_sink(read, lse, sink), lse=lse, empty=empty)
