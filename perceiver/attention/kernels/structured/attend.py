"""Softmax attention to tokens whose content and position codes stay apart: one operator."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from perceiver.attention.kernels.structured import chunks
from perceiver.attention.kernels.structured.chunks import empty_results, empty_token_gradients
from perceiver.ops.matmul import differs_by_function, without_autocast
from perceiver.shapes import Float


class Partial(NamedTuple):
    """What queries read of some tokens, and the log-sum-exp to merge it with other reads by.

    Args:
        content: (b, r, k) Σ w content.
        tail: (b, r, t) Σ w ρ code, or on a grid Σ w ρ over each line; None without positions.
        columns: (b, r, w) Σ w ρ over each column of a grid; None without one.
        lse: (b, r) log-sum-exp of the scores; −∞ where there is nothing to attend to.
    """

    content: Float[Tensor, "b r k"]
    tail: Float[Tensor, "b r t"] | None
    columns: Float[Tensor, "b r w"] | None
    lse: Float[Tensor, "b r"]


def attend(
    query: Float[Tensor, "#b r k"],
    content: Float[Tensor, "b m k"],
    *,
    rho: Float[Tensor, "b m"] | None = None,
    code: Float[Tensor, "m t"] | None = None,
    query_tail: Float[Tensor, "#b r t"] | None = None,
    query_columns: Float[Tensor, "#b r w"] | None = None,
) -> Partial:
    """Attention to content and positions that stay apart; the (r, m) scores never exist at once.

    The score of a row and token m is query · content_m, plus a position term that is one of

        ρ_m query_tail · code_m                      tokens along one axis,
        ρ_m (query_tail_i + query_columns_j)         tokens on a grid, m = i·w + j,

    so a grid's positions cost t + w products a row instead of m. What is read has the same form:
    Σ_m w_m content_m, and the weights times ρ summed over codes, or lines and columns. The backward
    pass computes the scores again. Memory beside the arguments: a few chunks.

    Args:
        query: rows r (heads × queries); a batch of 1 serves all examples.
        content: of the tokens. Its last channel is 1 on tokens that may be attended to; masked
            tokens hold zeros in all channels, and zero `rho`; their gradients mean nothing.
        rho: factor of a token's position term.
        code: position codes of the tokens; None on a grid.
        query_tail: the queries of `code`; on a grid the terms of its t lines.
        query_columns: the terms of a grid's w columns.

    Returns:
        see `Partial`; its last content channel is 1, or 0 where there is nothing to attend to.

    Raises:
        ValueError: under torch.func or forward-mode differentiation, which this has no rules for.
    """
    if differs_by_function():
        raise ValueError(
            "structured attention has no rules for torch.func and forward-mode differentiation: "
            "use kernel=auto or kernel=dense"
        )
    with without_autocast(content.device):
        read, tail, columns, lse = _attend(query, content, rho, code, query_tail, query_columns)
    return Partial(
        read,
        None if query_tail is None else tail,
        None if query_columns is None else columns,
        lse,
    )


def _kernels(
    query: Tensor, content: Tensor, code: Tensor | None, query_columns: Tensor | None
) -> ModuleType:
    """What computes it: Triton's kernels where they serve, else chunks, which do on any device."""
    if content.device.type != "cuda" or find_spec("triton") is None or not query.numel():
        return chunks
    from perceiver.attention.kernels.triton import launch

    return launch if launch.supports(content, code, query_columns) else chunks


def _on(device: torch.device) -> AbstractContextManager[object]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


_SCHEMA = (
    "(Tensor query, Tensor content, Tensor? rho, Tensor? code, Tensor? query_tail, "
    "Tensor? query_columns"
)


@torch.library.custom_op(
    "perceiver::structured",
    mutates_args=(),
    schema=f"{_SCHEMA}) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _attend(
    query: Tensor,
    content: Tensor,
    rho: Tensor | None,
    code: Tensor | None,
    query_tail: Tensor | None,
    query_columns: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    kernels = _kernels(query, content, code, query_columns)
    with _on(content.device):
        return kernels.forward(query, content, rho, code, query_tail, query_columns)


@_attend.register_fake
def _(
    query: Tensor,
    content: Tensor,
    rho: Tensor | None,
    code: Tensor | None,
    query_tail: Tensor | None,
    query_columns: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return empty_results(query, content, query_tail, query_columns)


@torch.library.custom_op(
    "perceiver::structured_backward",
    mutates_args=(),
    schema=f"{_SCHEMA}, Tensor lse, Tensor offset, Tensor grad_read, Tensor? grad_tail, "
    "Tensor? grad_columns, bool for_tokens) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _attend_backward(
    query: Tensor,
    content: Tensor,
    rho: Tensor | None,
    code: Tensor | None,
    query_tail: Tensor | None,
    query_columns: Tensor | None,
    lse: Tensor,
    offset: Tensor,
    grad_read: Tensor,
    grad_tail: Tensor | None,
    grad_columns: Tensor | None,
    for_tokens: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, query_tail, query_columns, and if asked for of content, rho and code.

    With w the weights and g_m the gradient of w_m (the incoming gradients times token m, a product
    like that of the scores), the gradient of a score is w (g − offset), offset being Σ w g less the
    gradient of the log-sum-exp. Each sum over tokens then is a read, or its transpose.
    """
    kernels = _kernels(query, content, code, query_columns)
    with _on(content.device):
        return kernels.backward(
            query, content, rho, code, query_tail, query_columns,
            lse, offset, grad_read, grad_tail, grad_columns, for_tokens,
        )  # fmt: skip


@_attend_backward.register_fake
def _(
    query: Tensor,
    content: Tensor,
    rho: Tensor | None,
    code: Tensor | None,
    query_tail: Tensor | None,
    query_columns: Tensor | None,
    lse: Tensor,
    offset: Tensor,
    grad_read: Tensor,
    grad_tail: Tensor | None,
    grad_columns: Tensor | None,
    for_tokens: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    results = empty_results(query, content, query_tail, query_columns)
    return (*results[:3], *empty_token_gradients(content, rho, code, for_tokens))


def _setup(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs, *output)


def _backward(ctx, grad_read, grad_tail, grad_columns, grad_lse):  # type: ignore[no-untyped-def]
    # Asked for once: a checkpoint gives each tensor once.
    *inputs, read, tail, columns, lse = ctx.saved_tensors
    query, content, rho, code, query_tail, query_columns = inputs
    offset = (grad_read * read).sum(-1) - grad_lse
    if query_tail is not None:
        offset = offset + (grad_tail * tail).sum(-1)
    if query_columns is not None:
        offset = offset + (grad_columns * columns).sum(-1)
    # A row with nothing to attend to weighs its (masked) tokens with e⁰: their products are zero.
    for_tokens = any(ctx.needs_input_grad[1:4])
    # A backward pass that is run under autocast must not reach the products inside.
    with without_autocast(content.device):
        d_query, d_tail, d_columns, d_content, d_rho, d_code = _attend_backward(
            *inputs,
            lse,
            offset,
            grad_read,
            None if query_tail is None else grad_tail,
            None if query_columns is None else grad_columns,
            for_tokens,
        )
    return (
        _like(d_query, query),
        d_content if for_tokens else None,
        d_rho if for_tokens and rho is not None else None,
        d_code if for_tokens and code is not None else None,
        None if query_tail is None else _like(d_tail, query_tail),
        None if query_columns is None else _like(d_columns, query_columns),
    )


def _like(gradient: Tensor, value: Tensor) -> Tensor:
    """The gradient of a value that may have served a whole batch."""
    if value.shape[0] == 1 < gradient.shape[0]:
        gradient = gradient.sum(0, keepdim=True)
    return gradient.to(value.dtype)


_attend.register_autograd(_backward, setup_context=_setup)
