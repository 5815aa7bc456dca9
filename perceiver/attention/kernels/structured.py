"""Softmax attention to tokens that are content beside position codes, a chunk at a time."""

from __future__ import annotations

from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from perceiver.attention.kernels.structured_tokens import Chunk, Tokens
from perceiver.ops.matmul import differs_by_function, products, without_autocast
from perceiver.shapes import Float

# Scores that cannot pass this are exponentiated as they are: e⁶⁰ times ten million tokens still
# is a float32. Only beyond it does a running maximum have to be subtracted.
SAFE_SCORE = 60.0


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


def _is_safe(
    query: Tensor,
    content: Tensor,
    rho: Tensor | None,
    code: Tensor | None,
    query_tail: Tensor | None,
    query_columns: Tensor | None,
) -> bool:
    """Whether no score can pass SAFE_SCORE, by Cauchy's inequality for each row.

    Only a CPU is asked: the answer of another device would have to be waited for.
    """
    if content.numel() == 0 or query.numel() == 0:
        return True
    if content.device.type != "cpu":
        return False
    bound = query.float().norm(dim=-1) * content.float().norm(dim=-1).max()
    if rho is not None and query_tail is not None:
        if code is not None:
            term = query_tail.float().norm(dim=-1) * code.float().norm(dim=-1).max()
        else:
            assert query_columns is not None
            term = query_tail.float().abs().amax(-1) + query_columns.float().abs().amax(-1)
        bound = bound + rho.float().abs().max() * term
    return bool(bound.max() <= SAFE_SCORE)


def _some(flags: Tensor) -> bool:
    """Whether one may be true; only a CPU is asked."""
    return flags.device.type != "cpu" or bool(flags.any())


def _layout(query_tail: Tensor | None, query_columns: Tensor | None) -> tuple[int, int]:
    """(lines, columns) of the grid, (0, 0) without one."""
    if query_columns is None or query_tail is None:
        return 0, 0
    return query_tail.shape[-1], query_columns.shape[-1]


def _kernels(
    query: Tensor, content: Tensor, code: Tensor | None, query_columns: Tensor | None
) -> ModuleType | None:
    """The Triton kernels, where they serve: else chunks do, on any device."""
    if content.device.type != "cuda" or find_spec("triton") is None or not query.numel():
        return None
    from perceiver.attention.kernels import structured_triton

    return structured_triton if structured_triton.supports(content, code, query_columns) else None


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
    if kernels is not None:
        with torch.cuda.device_of(content):
            return kernels.forward(query, content, rho, code, query_tail, query_columns)
    b, rows = content.shape[0], query.shape[1]
    tokens = Tokens(content, rho, code, *_layout(query_tail, query_columns))
    read, tail, columns, lse = _empty_results(query, content, query_tail, query_columns)
    for total in (read, tail, columns):
        total.zero_()
    is_safe = _is_safe(query, content, rho, code, query_tail, query_columns)
    peak = read.new_full((b, rows, 1), 0.0 if is_safe else float("-inf"))
    for chunk in tokens.chunks(rows):
        loaded = tokens.load(chunk)
        joined = tokens.queries("query", query, query_tail, chunk)
        scores = tokens.product("scores", loaded, joined, query_columns, chunk)
        if not is_safe:
            is_masked = loaded[..., None, :, tokens.channels - 1] == 0
            if _some(is_masked):
                scores.masked_fill_(is_masked, float("-inf"))
            highest = torch.maximum(peak[chunk.examples], scores.amax(-1, keepdim=True))
            # Nothing to attend to so far: there is nothing to rescale either.
            shift = highest.masked_fill(highest == float("-inf"), 0.0)
            if _some(highest > peak[chunk.examples]):
                factor = (peak[chunk.examples] - shift).exp()
                for total in (read, tail, columns):
                    total[chunk.examples] *= factor
                peak[chunk.examples] = highest
            scores -= shift
        weights = scores.exp_()
        tokens.add_read(weights, loaded, chunk, read, tail)
        if query_columns is not None:
            tokens.add_columns(weights, chunk, columns)
    total = read[..., -1:].clone()
    lse.copy_((peak + total.log()).squeeze(-1))
    total.masked_fill_(total == 0, 1.0)
    return read.div_(total), tail.div_(total), columns.div_(total), lse


@_attend.register_fake
def _(
    query: Tensor,
    content: Tensor,
    rho: Tensor | None,
    code: Tensor | None,
    query_tail: Tensor | None,
    query_columns: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _empty_results(query, content, query_tail, query_columns)


def _empty_results(
    query: Tensor, content: Tensor, query_tail: Tensor | None, query_columns: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = torch.float64 if content.dtype == torch.float64 else torch.float32
    shape = content.shape[0], query.shape[1]
    tail = 0 if query_tail is None else query_tail.shape[-1]
    columns = 0 if query_columns is None else query_columns.shape[-1]
    return (
        content.new_empty(*shape, content.shape[-1], dtype=dtype),
        content.new_empty(*shape, tail, dtype=dtype),
        content.new_empty(*shape, columns, dtype=dtype),
        content.new_empty(*shape, dtype=dtype),
    )


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
    if kernels is not None:
        with torch.cuda.device_of(content):
            return kernels.backward(
                query, content, rho, code, query_tail, query_columns,
                lse, offset, grad_read, grad_tail, grad_columns, for_tokens,
            )  # fmt: skip
    b, rows = content.shape[0], query.shape[1]
    tokens = Tokens(content, rho, code, *_layout(query_tail, query_columns))
    d_query, d_tail, d_columns, _ = _empty_results(query, content, query_tail, query_columns)
    for total in (d_query, d_tail, d_columns):
        total.zero_()
    d_content, d_rho, d_code = _empty_token_gradients(content, rho, code, for_tokens)
    d_code.zero_()
    # −lse and −offset enter as the queries of the channel that is 1.
    shifted = query.to(tokens.dtype).expand(b, -1, -1).clone()
    shifted[..., -1] -= lse.masked_fill(lse == float("-inf"), 0.0)
    grad_read = grad_read.clone()
    grad_read[..., -1] -= offset
    for chunk in tokens.chunks(rows):
        loaded = tokens.load(chunk)
        joined = tokens.queries("query", shifted, query_tail, chunk)
        # Masked tokens weigh e⁰ here, and hold zeros: their products are zero.
        weights = tokens.product("scores", loaded, joined, query_columns, chunk).exp_()
        grad = tokens.queries("gradient", grad_read, grad_tail, chunk)
        d_scores = tokens.product("d_scores", loaded, grad, grad_columns, chunk)
        d_scores *= weights
        tokens.add_read(d_scores, loaded, chunk, d_query, d_tail)
        if query_columns is not None:
            tokens.add_columns(d_scores, chunk, d_columns)
        if for_tokens:
            d_loaded = products(d_scores.mT, joined)
            d_loaded = products(weights.mT, grad, out=d_loaded, is_added=True)
            _token_gradients(
                tokens, chunk, d_loaded, d_scores, weights, query_columns, grad_columns,
                (d_content, d_rho, d_code),
            )  # fmt: skip
    return d_query, d_tail, d_columns, d_content, d_rho, d_code


def _token_gradients(
    tokens: Tokens,
    chunk: Chunk,
    d_loaded: Tensor,
    d_scores: Tensor,
    weights: Tensor,
    query_columns: Tensor | None,
    grad_columns: Tensor | None,
    into: tuple[Tensor, Tensor, Tensor],
) -> None:
    """From the gradient of a chunk's matrix to those of content, rho and code."""
    d_content, d_rho, d_code = into
    k = tokens.channels
    d_content[chunk.examples, chunk.tokens] = d_loaded[..., :k].to(d_content.dtype)
    d_own = d_loaded[..., k:]
    if tokens.is_grid:
        assert query_columns is not None
        assert grad_columns is not None
        grid = d_own.unflatten(1, (-1, tokens.width)).diagonal(dim1=1, dim2=3).transpose(1, 2)
        d_lines = grid.clone()
        for factor, terms in ((d_scores, query_columns), (weights, grad_columns)):
            terms = terms[chunk.examples] if terms.shape[0] > 1 else terms
            by_line = factor.unflatten(-1, (-1, tokens.width))
            d_lines += (by_line * terms.to(factor.dtype)[:, :, None]).sum(1)
        d_rho[chunk.examples, chunk.tokens] = d_lines.flatten(1).to(d_rho.dtype)
    elif tokens.code is not None:
        code, rho = tokens.code[chunk.tokens].to(tokens.dtype), tokens.rho_of(chunk)
        d_rho[chunk.examples, chunk.tokens] = (d_own * code).sum(-1).to(d_rho.dtype)
        d_code[chunk.tokens] += torch.einsum("bmt,bm->mt", d_own, rho).to(d_code.dtype)


def _empty_token_gradients(
    content: Tensor, rho: Tensor | None, code: Tensor | None, for_tokens: bool
) -> tuple[Tensor, Tensor, Tensor]:
    if not for_tokens:
        return content.new_empty(0), content.new_empty(0), content.new_empty(0)
    return (
        torch.empty_like(content),
        content.new_empty(0) if rho is None else torch.empty_like(rho),
        content.new_empty(0) if code is None else torch.empty_like(code),
    )


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
    results = _empty_results(query, content, query_tail, query_columns)
    return (*results[:3], *_empty_token_gradients(content, rho, code, for_tokens))


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
