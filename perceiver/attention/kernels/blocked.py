"""Softmax attention a block of scores at a time, for heads that are wide or would be padded."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from perceiver.attention import products as matrices
from perceiver.attention.products import onednn_pays, products, without_autocast
from perceiver.shapes import Bool, Float

# Scores that are held at once: 4 MiB in float32, what stays in a core's share of the cache.
BLOCK = 1 << 20
# Scores of an example from which the few calls that a block takes do not count.
LEAST_SCORES = 1 << 17
# How much wider than queries values must be, where torch's kernel would pad the queries.
LEAST_RATIO = 1.5
# Width of a head from which products outweigh the passes over scores, and queries up to which:
# torch's kernel makes fewer passes, this one larger products. (Where MKL is slow it is so for both,
# and the passes decide.)
WIDE, MOST_QUERIES = 128, 512
# Multiplications for a head's scores from which oneDNN's products pay, one by one, and keys up to
# which: with more, blocks have so few queries that adding to the gradients of keys takes over.
LEAST_OF_A_HEAD, MOST_KEYS = 1 << 24, 1 << 12

_Block = tuple[int, slice, slice]  # an example, heads, queries


def pays(heads: int, queries: int, keys: int, widths: tuple[int, int], *, is_half: bool) -> bool:
    """Whether this is quicker on a CPU than torch's fused kernel.

    Args:
        heads, queries, keys: how many there are.
        widths: of a query and of a value, of one head.
        is_half: whether in half precision, which torch's kernel is quick in.
    """
    query_width, value_width = widths
    would_be_padded = value_width >= LEAST_RATIO * query_width
    is_wide = query_width >= WIDE and heads > 1 and queries <= MOST_QUERIES
    is_wide = is_wide and not matrices.MKL_IS_SLOW
    is_enough = heads * queries * keys >= LEAST_SCORES
    is_large = keys <= MOST_KEYS and _one_by_one(queries, keys, min(widths))
    return (would_be_padded or is_wide or is_large) and is_enough and not is_half


def _one_by_one(queries: int, keys: int, width: int) -> bool:
    """Whether oneDNN, which multiplies one matrix at a time, pays for each of several heads."""
    return queries * keys * width >= LEAST_OF_A_HEAD and onednn_pays(queries, keys, width)


def blocked(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d"],
    value: Float[Tensor, "b h k e"],
    *,
    keep: Bool[Tensor, "#b #h #q #k"] | None,
    scale: float,
) -> Float[Tensor, "b h q e"]:
    """softmax(scale · q·k) v; only a block of scores exists at a time, also in the backward pass.

    Args:
        query, key, value: in float32 or float64, of one or more queries and keys.
        keep: True = may be attended to; every query has something that is.
        scale: factor on the scores.
    """
    with without_autocast(query.device):
        return _attend(query, key, value, keep, scale)


class _Blocks:
    """The blocks of one attention, and the room that their scores take turns in.

    Args:
        query: (b, h, q, d).
        key: (b, h, k, d).
        keep: mask of the scores.
        scale: factor on them.
    """

    def __init__(self, query: Tensor, key: Tensor, keep: Tensor | None, scale: float) -> None:
        self.query, self.key, self.keep, self.scale = query, key, keep, scale
        (self.examples, self.heads, self.queries), self.keys = query.shape[:3], key.shape[2]
        self.rows = min(self.queries, max(1, BLOCK // self.keys))
        self.group = min(self.heads, max(1, BLOCK // (self.rows * self.keys)))
        if query.dtype == torch.float32 and _one_by_one(self.rows, self.keys, query.shape[-1]):
            self.group = 1

    def __iter__(self) -> Iterator[_Block]:
        for example in range(self.examples):
            for head in range(0, self.heads, self.group):
                for row in range(0, self.queries, self.rows):
                    heads = slice(head, min(head + self.group, self.heads))
                    yield example, heads, slice(row, min(row + self.rows, self.queries))

    def room(self) -> Tensor:
        """For the scores of a block."""
        return self.query.new_empty(self.group, self.rows, self.keys)

    def weights(self, at: _Block, room: Tensor) -> Tensor:
        """Those of a block, in the room."""
        example, heads, rows = at
        query, key = self.query[example, heads, rows], self.key[example, heads]
        scores = room[: query.shape[0], : query.shape[1]]
        scores = products(query, key.mT, scale=self.scale, out=scores)
        if self.keep is not None:
            part = self.keep[example if self.keep.shape[0] > 1 else 0]
            part = part[heads] if part.shape[0] > 1 else part
            part = part[:, rows] if part.shape[1] > 1 else part
            scores.masked_fill_(~part, float("-inf"))
        return torch.softmax(scores, -1, out=scores)


def _by_row(like: Tensor, width: int) -> Tensor:
    """Room for (b, h, n, width), laid out so that a row's heads lie together."""
    b, h, n = like.shape[:3]
    return like.new_empty(b, n, h, width).transpose(1, 2)


_SCHEMA = "(Tensor query, Tensor key, Tensor value, Tensor? keep, float scale"


@torch.library.custom_op(
    "perceiver::blocked",
    mutates_args=(),
    device_types="cpu",
    schema=f"{_SCHEMA}) -> Tensor",
)
def _attend(query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, scale: float) -> Tensor:
    read = _by_row(query, value.shape[-1])
    blocks = _Blocks(query, key, keep, scale)
    room = blocks.room()
    for at in blocks:
        # A product is quicker into memory of its own than among other heads: it is copied there.
        read[at] = products(blocks.weights(at, room), value[at[:2]])
    return read


@_attend.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, scale: float) -> Tensor:
    return _by_row(query, value.shape[-1])


@torch.library.custom_op(
    "perceiver::blocked_backward",
    mutates_args=(),
    device_types="cpu",
    schema=f"{_SCHEMA}, Tensor grad) -> (Tensor, Tensor, Tensor)",
)
def _attend_backward(
    query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, scale: float, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value."""
    d_query, d_key, d_value = _empty_gradients(query, key, value)
    blocks = _Blocks(query, key, keep, scale)
    room, other = blocks.room(), blocks.room()
    for at in blocks:
        keys, part, is_first = at[:2], grad[at], at[2].start == 0
        weights = blocks.weights(at, room)
        d_scores = other[: weights.shape[0], : weights.shape[1]]
        d_scores = products(part, value[keys].mT, out=d_scores)
        _softmax_backward(d_scores, weights, -1, weights.dtype, grad_input=d_scores)
        d_query[at] = products(d_scores, key[keys], scale=scale)
        if is_first:
            d_key[keys] = products(d_scores.mT, query[at], scale=scale)
            d_value[keys] = products(weights.mT, part)
        else:
            d_key[keys] += products(d_scores.mT, query[at], scale=scale)
            d_value[keys] += products(weights.mT, part)
    return d_query, d_key, d_value


# In one pass, where it is written out in three.
_softmax_backward = torch.ops.aten._softmax_backward_data.out


def _empty_gradients(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = (_by_row(x, x.shape[-1]) for x in tensors)
    return query, key, value


@_attend_backward.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, scale: float, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_gradients(query, key, value)


def _setup(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, grad):  # type: ignore[no-untyped-def]
    query, key, value, keep = ctx.saved_tensors
    with without_autocast(query.device):
        gradients = _attend_backward(query, key, value, keep, ctx.scale, grad)
    return *gradients, None, None


_attend.register_autograd(_backward, setup_context=_setup)
