"""What the Triton kernels of structured attention have in common: rows, tokens, their products."""

from __future__ import annotations

from typing import no_type_check  # Triton reads sources: nothing may wrap these functions

import triton
import triton.language as tl


@triton.jit
@no_type_check
def load_tile(start, row, is_row, stride, num, BLOCK: tl.constexpr):
    """(rows, BLOCK) of a matrix, zeros beyond its `num` columns and in rows outside."""
    column = tl.arange(0, BLOCK)
    at = start + row[:, None] * stride + column[None, :]
    return tl.load(at, mask=is_row[:, None] & (column < num)[None, :], other=0.0).to(tl.float32)


@triton.jit
@no_type_check
def store_tile(start, row, is_row, stride, num, value, BLOCK: tl.constexpr):
    column = tl.arange(0, BLOCK)
    at = start + row[:, None] * stride + column[None, :]
    tl.store(at, value, mask=is_row[:, None] & (column < num)[None, :])


@triton.jit
@no_type_check
def load_tokens(
    content,
    side,
    rho,
    first,
    column,
    inside,
    side_stride,
    K: tl.constexpr,
    KX: tl.constexpr,
    KY: tl.constexpr,
    BLOCK_X: tl.constexpr,
    BLOCK_Y: tl.constexpr,
    IS_GRID: tl.constexpr,
    HAS_CODE: tl.constexpr,
):
    """x, side, ρ and who may be attended to, of the tokens from `first` on."""
    content += first * K
    x = load_tile(content, column, inside, K, KX, BLOCK_X)
    keep = tl.load(content + column * K + K - 1, mask=inside, other=0.0) != 0
    factor = tl.zeros_like(column).to(tl.float32)
    if IS_GRID or HAS_CODE:
        factor = tl.load(rho + first + column, mask=inside, other=0.0).to(tl.float32)
    if IS_GRID:
        x = tl.where(tl.arange(0, BLOCK_X)[None, :] == KX, factor[:, None], x)
    y = x
    if KY > 0:
        y = load_tile(side + first * side_stride, column, inside, side_stride, KY, BLOCK_Y)
        if HAS_CODE:
            y = y * factor[:, None]
    return x, y, factor, keep


@triton.jit
@no_type_check
def with_line_term(
    query, line, row, is_row, terms, lines, scale, KX: tl.constexpr, BLOCK_X: tl.constexpr
):
    """Queries whose part of ρ is the term of a grid's line."""
    term = tl.load(terms + row.to(tl.int64) * lines + line, mask=is_row, other=0.0)
    own = tl.arange(0, BLOCK_X)[None, :] == KX
    return tl.where(own, term.to(tl.float32)[:, None] * scale, query)


@triton.jit
@no_type_check
def channel_of_rho(values, KX: tl.constexpr, BLOCK_X: tl.constexpr):
    return tl.sum(tl.where(tl.arange(0, BLOCK_X)[None, :] == KX, values, 0.0), 1)


@triton.jit
@no_type_check
def scores_of(
    query,
    query_side,
    query_columns,
    x,
    side,
    rho,
    KY: tl.constexpr,
    IS_GRID: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """(rows, tokens): queries times tokens, with the terms of a grid's columns."""
    out = tl.dot(query, tl.trans(x), input_precision=PRECISION)
    if KY > 0:
        out = tl.dot(query_side, tl.trans(side), out, input_precision=PRECISION)
    if IS_GRID:
        out += query_columns * rho[None, :]
    return out
