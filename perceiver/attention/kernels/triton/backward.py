"""The Triton kernels of structured attention's gradients: of rows and of tokens.

Rows, lines, `x` and `side` are those of `forward`.
"""

from __future__ import annotations

from typing import no_type_check  # Triton reads sources: nothing may wrap these functions

import triton
import triton.language as tl

from perceiver.attention.kernels.triton.forward import LOG2E, SIZES
from perceiver.attention.kernels.triton.tiles import (
    channel_of_rho,
    load_tile,
    load_tokens,
    scores_of,
    store_tile,
    with_line_term,
)


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def backward_rows_kernel(
    query,
    content,
    side,
    rho,
    query_side,
    query_lines,
    query_columns,
    grad,
    grad_side,
    grad_lines,
    grad_columns,
    lse,
    offset,
    d_query,
    d_side,
    d_lines,
    d_columns,
    query_batch,
    query_side_batch,
    query_lines_batch,
    query_columns_batch,
    side_batch,
    side_stride,
    query_side_stride,
    num_rows,
    num_tokens,
    num_lines,
    width,
    lines_per_part,
    row_blocks,
    parts,
    K: tl.constexpr,
    KX: tl.constexpr,
    KY: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_X: tl.constexpr,
    BLOCK_Y: tl.constexpr,
    IS_GRID: tl.constexpr,
    HAS_CODE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients of a block of rows from some lines: a read with w (g − offset) for weights.

    The gradients of a query's parts are laid out as those parts in `forward_kernel`'s results.
    """
    program = tl.program_id(0)
    row = (program % row_blocks).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    is_row = row < num_rows
    part = program // row_blocks % parts
    example = (program // row_blocks // parts).to(tl.int64)
    first_line = part * lines_per_part
    last_line = tl.minimum(first_line + lines_per_part, num_lines)
    content += example * num_tokens * K
    side += example * side_batch
    rho += example * num_tokens
    query_lines += example * query_lines_batch
    query_columns += example * query_columns_batch
    at = example * num_rows
    grad_lines += at * num_lines
    at_line = (at + row) * num_lines
    q = load_tile(query + example * query_batch, row, is_row, K, KX, BLOCK_X)
    g = load_tile(grad + at * K, row, is_row, K, KX, BLOCK_X)
    q_side, g_side = q, g
    q_columns = tl.zeros((BLOCK_R, BLOCK_M), tl.float32)
    g_columns = q_columns
    if KY > 0:
        start = query_side + example * query_side_batch
        q_side = load_tile(start, row, is_row, query_side_stride, KY, BLOCK_Y)
        start = grad_side + at * query_side_stride
        g_side = load_tile(start, row, is_row, query_side_stride, KY, BLOCK_Y)
    shift = tl.load(lse + at + row, is_row, other=0.0)
    # A row with nothing to attend to has no weights at all.
    shift = tl.where(shift == float("-inf"), 0.0, shift)
    drop = tl.load(offset + at + row, is_row, other=0.0)
    total = tl.zeros((BLOCK_R, BLOCK_X), tl.float32)
    total_side = tl.zeros((BLOCK_R, BLOCK_Y), tl.float32)
    at_part = (example * parts + part) * num_rows
    for first_column in range(0, width, BLOCK_M):
        column = first_column + tl.arange(0, BLOCK_M)
        total_columns = tl.zeros((BLOCK_R, BLOCK_M), tl.float32)
        if IS_GRID:
            # What this program wrote of its lines is about to be read.
            tl.debug_barrier()
            left = width - first_column
            start = query_columns + first_column
            q_columns = load_tile(start, row, is_row, width, left, BLOCK_M)
            start = grad_columns + at * width + first_column
            g_columns = load_tile(start, row, is_row, width, left, BLOCK_M)
        for line in range(first_line, last_line):
            first = tl.full((), width, tl.int64) * line
            inside = (column < width) & (first + column < num_tokens)
            x, y, factor, keep = load_tokens(
                content, side, rho, first, column, inside, side_stride,
                K, KX, KY, BLOCK_X, BLOCK_Y, IS_GRID, HAS_CODE,
            )  # fmt: skip
            if IS_GRID:
                q = with_line_term(q, line, row, is_row, query_lines, num_lines, 1.0, KX, BLOCK_X)
                g = with_line_term(g, line, row, is_row, grad_lines, num_lines, 1.0, KX, BLOCK_X)
            scores = scores_of(q, q_side, q_columns, x, y, factor, KY, IS_GRID, PRECISION)
            scores = tl.where(keep[None, :], scores - shift[:, None], float("-inf"))
            d_scores = scores_of(g, g_side, g_columns, x, y, factor, KY, IS_GRID, PRECISION)
            d_scores = tl.exp2(scores * LOG2E) * (d_scores - drop[:, None])
            here = tl.dot(d_scores, x, input_precision=PRECISION)
            total += here
            if KY > 0:
                total_side = tl.dot(d_scores, y, total_side, input_precision=PRECISION)
            if IS_GRID:
                total_columns += d_scores * factor[None, :]
                seen = is_row & (first_column > 0)
                so_far = tl.load(d_lines + at_line + line, seen, other=0.0)
                so_far += channel_of_rho(here, KX, BLOCK_X)
                tl.store(d_lines + at_line + line, so_far, is_row)
        if IS_GRID:
            store_tile(
                d_columns + at_part * width + first_column, row, is_row, width,
                width - first_column, total_columns, BLOCK_M,
            )  # fmt: skip
    store_tile(d_query + at_part * K, row, is_row, K, KX, total, BLOCK_X)
    if KY > 0:
        start = d_side + at_part * query_side_stride
        store_tile(start, row, is_row, query_side_stride, KY, total_side, BLOCK_Y)


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def backward_tokens_kernel(
    query,
    content,
    side,
    rho,
    query_side,
    query_lines,
    query_columns,
    grad,
    grad_side,
    grad_lines,
    grad_columns,
    lse,
    offset,
    d_content,
    d_side,
    d_rho,
    query_batch,
    query_side_batch,
    query_lines_batch,
    query_columns_batch,
    side_batch,
    side_stride,
    query_side_stride,
    num_rows,
    num_tokens,
    num_lines,
    width,
    batch,
    examples_per_group,
    column_blocks,
    K: tl.constexpr,
    KX: tl.constexpr,
    KY: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_X: tl.constexpr,
    BLOCK_Y: tl.constexpr,
    IS_GRID: tl.constexpr,
    HAS_CODE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients of the tokens of a line from all rows, for some examples one after the other.

    The gradient of a code, which all examples share, is summed over a program's examples into
    `d_side` (groups, m, t); that of the content's rest goes to its place in `d_content`.
    """
    program = tl.program_id(0)
    line = program // column_blocks % num_lines
    group = program // column_blocks // num_lines
    first_column = program % column_blocks * BLOCK_M
    column = first_column + tl.arange(0, BLOCK_M)
    first = tl.full((), width, tl.int64) * line
    inside = (column < width) & (first + column < num_tokens)
    d_code = tl.zeros((BLOCK_M, BLOCK_Y), tl.float32)
    first_example = group * examples_per_group
    for index in range(first_example, tl.minimum(first_example + examples_per_group, batch)):
        example = tl.full((), 1, tl.int64) * index
        tokens, at = example * num_tokens, example * num_rows
        x, y, factor, keep = load_tokens(
            content + tokens * K, side + example * side_batch, rho + tokens,
            first, column, inside, side_stride,
            K, KX, KY, BLOCK_X, BLOCK_Y, IS_GRID, HAS_CODE,
        )  # fmt: skip
        d_x = tl.zeros((BLOCK_M, BLOCK_X), tl.float32)
        d_y = tl.zeros((BLOCK_M, BLOCK_Y), tl.float32)
        d_factor = tl.zeros((BLOCK_M,), tl.float32)
        for start in range(0, num_rows, BLOCK_R):
            row = tl.full((), 1, tl.int64) * start + tl.arange(0, BLOCK_R)
            is_row = row < num_rows
            q = load_tile(query + example * query_batch, row, is_row, K, KX, BLOCK_X)
            g = load_tile(grad + at * K, row, is_row, K, KX, BLOCK_X)
            q_side, g_side, q_columns, g_columns = q, g, d_x, d_x
            if KY > 0:
                first_query = query_side + example * query_side_batch
                q_side = load_tile(first_query, row, is_row, query_side_stride, KY, BLOCK_Y)
                first_grad = grad_side + at * query_side_stride
                g_side = load_tile(first_grad, row, is_row, query_side_stride, KY, BLOCK_Y)
            if IS_GRID:
                first_query = query_columns + example * query_columns_batch + first_column
                left = width - first_column
                q_columns = load_tile(first_query, row, is_row, width, left, BLOCK_M)
                first_grad = grad_columns + at * width + first_column
                g_columns = load_tile(first_grad, row, is_row, width, left, BLOCK_M)
                terms = query_lines + example * query_lines_batch
                q = with_line_term(q, line, row, is_row, terms, num_lines, 1.0, KX, BLOCK_X)
                terms = grad_lines + at * num_lines
                g = with_line_term(g, line, row, is_row, terms, num_lines, 1.0, KX, BLOCK_X)
            shift = tl.load(lse + at + row, is_row, other=0.0)
            shift = tl.where(shift == float("-inf"), 0.0, shift)
            drop = tl.load(offset + at + row, is_row, other=0.0)
            scores = scores_of(q, q_side, q_columns, x, y, factor, KY, IS_GRID, PRECISION)
            scores = tl.where(keep[None, :], scores - shift[:, None], float("-inf"))
            weights = tl.exp2(scores * LOG2E)
            d_scores = scores_of(g, g_side, g_columns, x, y, factor, KY, IS_GRID, PRECISION)
            d_scores = weights * (d_scores - drop[:, None])
            d_x = tl.dot(tl.trans(d_scores), q, d_x, input_precision=PRECISION)
            d_x = tl.dot(tl.trans(weights), g, d_x, input_precision=PRECISION)
            if KY > 0:
                d_y = tl.dot(tl.trans(d_scores), q_side, d_y, input_precision=PRECISION)
                d_y = tl.dot(tl.trans(weights), g_side, d_y, input_precision=PRECISION)
            if IS_GRID:
                d_factor += tl.sum(d_scores * q_columns + weights * g_columns, 0)
        store_tile(d_content + (tokens + first) * K, column, inside, K, KX, d_x, BLOCK_X)
        if IS_GRID:
            d_factor += channel_of_rho(d_x, KX, BLOCK_X)
        if HAS_CODE:
            code = load_tile(side + first * side_stride, column, inside, side_stride, KY, BLOCK_Y)
            d_factor = tl.sum(d_y * code, 1)
            d_code += d_y * factor[:, None]
        elif KY > 0:
            store_tile(d_content + (tokens + first) * K + KX, column, inside, K, KY, d_y, BLOCK_Y)
        if IS_GRID or HAS_CODE:
            tl.store(d_rho + tokens + first + column, d_factor, inside)
    if HAS_CODE:
        start = d_side + (group.to(tl.int64) * num_tokens + first) * KY
        store_tile(start, column, inside, KY, KY, d_code, BLOCK_Y)
