"""Structured attention a chunk of tokens at a time: what runs where Triton's kernels do not."""

from __future__ import annotations

import torch
from torch import Tensor

from perceiver.attention.kernels.structured.tokens import Chunk, Tokens
from perceiver.ops.matmul import products

# Scores that cannot pass this are exponentiated as they are: e⁶⁰ times ten million tokens still
# is a float32. Only beyond it does a running maximum have to be subtracted.
SAFE_SCORE = 60.0


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


def forward(
    query: Tensor,
    content: Tensor,
    rho: Tensor | None,
    code: Tensor | None,
    query_tail: Tensor | None,
    query_columns: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `attend` returns: content, tail, columns, log-sum-exp."""
    b, rows = content.shape[0], query.shape[1]
    tokens = Tokens(content, rho, code, *_layout(query_tail, query_columns))
    read, tail, columns, lse = empty_results(query, content, query_tail, query_columns)
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


def backward(
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
    """Gradients of query, query_tail, query_columns, and if asked for of content, rho and code."""
    b, rows = content.shape[0], query.shape[1]
    tokens = Tokens(content, rho, code, *_layout(query_tail, query_columns))
    d_query, d_tail, d_columns, _ = empty_results(query, content, query_tail, query_columns)
    for total in (d_query, d_tail, d_columns):
        total.zero_()
    d_content, d_rho, d_code = empty_token_gradients(content, rho, code, for_tokens)
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


def empty_results(
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


def empty_token_gradients(
    content: Tensor, rho: Tensor | None, code: Tensor | None, for_tokens: bool
) -> tuple[Tensor, Tensor, Tensor]:
    if not for_tokens:
        return content.new_empty(0), content.new_empty(0), content.new_empty(0)
    return (
        torch.empty_like(content),
        content.new_empty(0) if rho is None else torch.empty_like(rho),
        content.new_empty(0) if code is None else torch.empty_like(code),
    )
