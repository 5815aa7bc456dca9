"""Softmax attention a block of scores at a time, for heads that torch's fused kernel would pad."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from perceiver.shapes import Bool, Float

# Scores that are held at once: 4 MiB in float32, what stays in a core's share of the cache.
BLOCK = 1 << 20
# Scores of a head from which the few calls that a block takes do not count.
LEAST_SCORES = 1 << 18
# How much wider than queries values must be.
LEAST_RATIO = 3

_Block = tuple[int, slice, slice]  # an example, heads, queries


def pays(queries: int, keys: int, widths: tuple[int, int], *, is_half: bool) -> bool:
    """Whether this is quicker on a CPU than torch's fused kernel, which pads queries to values.

    Args:
        queries, keys: how many there are.
        widths: of a query and of a value, of one head.
        is_half: whether in half precision, which torch's kernel is quick in.
    """
    query_width, value_width = widths
    is_wide = value_width >= LEAST_RATIO * query_width
    return is_wide and queries * keys >= LEAST_SCORES and not is_half


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
        query, key, value: in float32 or float64.
        keep: True = may be attended to; every query has something that is.
        scale: factor on the scores.
    """
    with torch.autocast(query.device.type, enabled=False):
        return _attend(query, key, value, keep, scale)[0]


class _Blocks:
    """The blocks of one attention, and the room that their scores take turns in.

    Args:
        query: (b, h, q, d).
        key: (b, h, k, d).
        keep: mask of the scores.
        scale: factor on them.
        rooms: blocks that are held at a time.
    """

    def __init__(
        self, query: Tensor, key: Tensor, keep: Tensor | None, scale: float, rooms: int
    ) -> None:
        self.query, self.key, self.keep, self.scale = query, key, keep, scale
        (self.examples, self.heads, self.queries), self.keys = query.shape[:3], key.shape[2]
        self.rows = min(self.queries, max(1, BLOCK // self.keys))
        self.group = min(self.heads, max(1, BLOCK // (self.rows * self.keys)))
        self.rooms = query.new_empty(rooms, self.group * self.rows * self.keys)

    def __iter__(self) -> Iterator[_Block]:
        for example in range(self.examples):
            for head in range(0, self.heads, self.group):
                for row in range(0, self.queries, self.rows):
                    heads = slice(head, min(head + self.group, self.heads))
                    yield example, heads, slice(row, min(row + self.rows, self.queries))

    def product(self, left: Tensor, right: Tensor, room: int) -> Tensor:
        """left · right for each pair of a query and a key."""
        shape = left.shape[0], left.shape[1], self.keys
        out = self.rooms[room, : shape[0] * shape[1] * shape[2]].view(shape)
        return torch.bmm(left, right.mT, out=out)

    def scores(self, at: _Block) -> Tensor:
        example, heads, rows = at
        query, key = self.query[example, heads, rows], self.key[example, heads]
        scores = self.product(query * self.scale, key, 0)
        if self.keep is not None:
            part = self.keep[example if self.keep.shape[0] > 1 else 0]
            part = part[heads] if part.shape[0] > 1 else part
            part = part[:, rows] if part.shape[1] > 1 else part
            scores.masked_fill_(~part, float("-inf"))
        return scores


def _by_row(like: Tensor, width: int) -> Tensor:
    """Room for (b, h, n, width), laid out so that a row's heads lie together."""
    b, h, n = like.shape[:3]
    return like.new_zeros(b, n, h, width).transpose(1, 2)


_SCHEMA = "(Tensor query, Tensor key, Tensor value, Tensor? keep, float scale"


@torch.library.custom_op(
    "perceiver::blocked",
    mutates_args=(),
    device_types="cpu",
    schema=f"{_SCHEMA}) -> (Tensor, Tensor)",
)
def _attend(
    query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """(what is read, log-sum-exp (b, h, q, 1))."""
    read, lse = _empty(query, value)
    blocks = _Blocks(query, key, keep, scale, rooms=1)
    for at in blocks:
        example, heads, rows = at
        weights = blocks.scores(at)
        top = weights.amax(-1, keepdim=True)
        total = weights.sub_(top).exp_().sum(-1, keepdim=True)
        read[example, heads, rows] = torch.bmm(weights, value[example, heads]) / total
        lse[example, heads, rows] = top + total.log()
    return read, lse


def _empty(query: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    return _by_row(query, value.shape[-1]), query.new_empty(*query.shape[:3], 1)


@_attend.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    return _empty(query, value)


@torch.library.custom_op(
    "perceiver::blocked_backward",
    mutates_args=(),
    device_types="cpu",
    schema=f"{_SCHEMA}, Tensor lse, Tensor offset, Tensor grad) -> (Tensor, Tensor, Tensor)",
)
def _attend_backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keep: Tensor | None,
    scale: float,
    lse: Tensor,
    offset: Tensor,
    grad: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value; `offset` is Σ grad · read of each query."""
    d_query, d_key, d_value = _empty_gradients(query, key, value)
    blocks = _Blocks(query, key, keep, scale, rooms=2)
    for at in blocks:
        example, heads, rows = at
        part = grad[example, heads, rows]
        weights = blocks.scores(at).sub_(lse[example, heads, rows]).exp_()
        d_value[example, heads] += torch.bmm(weights.mT, part)
        d_scores = blocks.product(part, value[example, heads], 1)
        d_scores.sub_(offset[example, heads, rows]).mul_(weights)
        d_query[example, heads, rows] = torch.bmm(d_scores, key[example, heads])
        d_key[example, heads] += torch.bmm(d_scores.mT, query[example, heads, rows])
    return d_query.mul_(scale), d_key.mul_(scale), d_value


def _empty_gradients(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = (_by_row(x, x.shape[-1]) for x in tensors)
    return query, key, value


@_attend_backward.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keep: Tensor | None,
    scale: float,
    lse: Tensor,
    offset: Tensor,
    grad: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_gradients(query, key, value)


def _setup(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx, grad, _grad_lse):  # type: ignore[no-untyped-def]
    query, key, value, keep, read, lse = ctx.saved_tensors
    offset = (grad * read).sum(-1, keepdim=True)
    with torch.autocast(query.device.type, enabled=False):
        gradients = _attend_backward(query, key, value, keep, ctx.scale, lse, offset, grad)
    return *gradients, None, None


_attend.register_autograd(_backward, setup_context=_setup)
