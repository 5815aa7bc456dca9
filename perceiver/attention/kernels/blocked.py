"""Softmax attention a block of scores at a time, where large products outweigh more passes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from perceiver.ops import matmul as matrices
from perceiver.ops.matmul import onednn_multiplies_batches, products, without_autocast
from perceiver.shapes import Bool, Float

# Scores that are held at once: 4 MiB in float32, what stays in a core's share of the cache.
BLOCK = 1 << 20
# Scores of an example from which the few calls that a block takes do not count.
LEAST_SCORES = 1 << 17
# How much wider than queries values must be, where torch's kernel would pad the queries.
LEAST_RATIO = 1.5
# Width of a head from which products outweigh the passes over scores, and queries up to which:
# torch's kernel makes fewer passes, this one larger products.
WIDE, MOST_QUERIES = 128, 512
# Queries and keys from which oneDNN's products outweigh them, where MKL, which torch's kernel
# multiplies with, is slow.
LEAST_ROWS = 64

_Group = tuple[slice, slice]  # examples, heads
_Block = tuple[slice, slice, slice]  # and queries


def pays(heads: int, queries: int, keys: int, widths: tuple[int, int], *, is_half: bool) -> bool:
    """Whether this is quicker on a CPU than torch's fused kernel.

    Args:
        heads, queries, keys: how many there are.
        widths: of a query and of a value, of one head.
        is_half: whether in half precision, which torch's kernel is quick in.
    """
    query_width, value_width = widths
    would_be_padded = value_width >= LEAST_RATIO * query_width
    if matrices.MKL_IS_SLOW:
        has_products = onednn_multiplies_batches() and min(queries, keys) >= LEAST_ROWS
    else:
        has_products = query_width >= WIDE and heads > 1 and queries <= MOST_QUERIES
    is_enough = heads * queries * keys >= LEAST_SCORES
    return (would_be_padded or has_products) and is_enough and not is_half


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
        self.query, self.keep, self.scale = query, keep, scale
        (self.examples, self.heads, self.queries), self.keys = query.shape[:3], key.shape[2]
        self.rows = min(self.queries, max(1, BLOCK // self.keys))
        self.group = min(self.heads, max(1, BLOCK // (self.rows * self.keys)))
        self.batch = 1  # examples; several would be copied, which MKL does not ask for
        if self.group == self.heads and onednn_multiplies_batches():
            scores = self.heads * self.rows * self.keys
            self.batch = min(self.examples, max(1, BLOCK // scores))

    def groups(self) -> Iterator[_Group]:
        """Examples and heads whose scores are held at once, those of some queries at least."""
        for example in range(0, self.examples, self.batch):
            for head in range(0, self.heads, self.group):
                yield slice(example, example + self.batch), slice(head, head + self.group)

    def parts(self) -> Iterator[slice]:
        """Of the queries."""
        for row in range(0, self.queries, self.rows):
            yield slice(row, row + self.rows)

    def room(self) -> Tensor:
        """For the scores of a block."""
        return self.query.new_empty(self.batch * self.group, self.rows, self.keys)

    def weights(self, query: Tensor, key: Tensor, at: _Block, room: Tensor) -> Tensor:
        """Those of a block, in the room."""
        scores = room[: query.shape[0], : query.shape[1]]
        scores = products(query, key.mT, scale=self.scale, out=scores)
        if self.keep is not None:
            places = zip(at, self.keep.shape[:3], strict=True)
            part = self.keep[tuple(place if n > 1 else slice(1) for place, n in places)]
            heads = len(range(self.heads)[at[1]])
            scores.unflatten(0, (-1, heads)).masked_fill_(~part, float("-inf"))
        return torch.softmax(scores, -1, out=scores)


def _matrices(x: Float[Tensor, "b h n d"]) -> Float[Tensor, "m n d"]:
    """Of all examples and heads; for oneDNN in one piece, as every product would copy them."""
    x = x.flatten(0, 1)
    return x.contiguous() if onednn_multiplies_batches() else x


def _put(place: Float[Tensor, "b h n d"], result: Float[Tensor, "m n d"]) -> None:
    # A product is quicker into memory of its own than among other heads.
    place.copy_(result.view(place.shape))


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
    for group in blocks.groups():
        keys, values = _matrices(key[group]), _matrices(value[group])
        for rows in blocks.parts():
            at = *group, rows
            weights = blocks.weights(_matrices(query[at]), keys, at, room)
            _put(read[at], products(weights, values))
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
    for group in blocks.groups():
        keys, values = _matrices(key[group]), _matrices(value[group])
        d_keys, d_values = torch.empty_like(keys), torch.empty_like(values)
        for rows in blocks.parts():
            at = *group, rows
            queries, part = _matrices(query[at]), _matrices(grad[at])
            weights = blocks.weights(queries, keys, at, room)
            d_scores = other[: weights.shape[0], : weights.shape[1]]
            d_scores = products(part, values.mT, out=d_scores)
            _softmax_backward(d_scores, weights, -1, weights.dtype, grad_input=d_scores)
            _put(d_query[at], products(d_scores, keys, scale=scale))
            is_added = rows.start > 0
            d_keys = products(d_scores.mT, queries, scale=scale, out=d_keys, is_added=is_added)
            d_values = products(weights.mT, part, out=d_values, is_added=is_added)
        _put(d_key[group], d_keys)
        _put(d_value[group], d_values)
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
