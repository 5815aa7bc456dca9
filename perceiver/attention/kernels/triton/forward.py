"""The Triton kernel of structured attention.

Queries (rows) attend to tokens that lie in lines: the lines of a grid, or else just as many tokens
as a block holds. A token is a row of two matrices that stay apart: `x`, the first channels of the
content and, on a grid, ρ; and `side`, the rest of the content or ρ times the position code. A query
has the same two parts. On a grid its part of ρ is the term of the line at hand, and the terms of
columns are added to the scores: so the position of a token costs a score one multiplication.
"""

from __future__ import annotations

from typing import no_type_check  # Triton reads sources: nothing may wrap these functions

import triton
import triton.language as tl

from perceiver.attention.kernels.triton.tiles import (
    channel_of_rho,
    load_tile,
    load_tokens,
    scores_of,
    store_tile,
    with_line_term,
)

LOG2E = tl.constexpr(1.4426950408889634)

# These change with the batch: a kernel compiled for some would be compiled again in mid-training.
_KINDS = ("query", "query_side", "query_lines", "query_columns", "side")
SIZES = ["num_rows", "num_tokens", "num_lines", "lines_per_part", "row_blocks", "column_blocks"]
SIZES += ["parts", "batch", "examples_per_group", *(f"{kind}_batch" for kind in _KINDS)]


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def forward_kernel(
    query,
    content,
    side,
    rho,
    query_side,
    query_lines,
    query_columns,
    read,
    read_side,
    read_lines,
    read_columns,
    peaks,
    line_peaks,
    query_batch,
    query_side_batch,
    query_lines_batch,
    query_columns_batch,
    side_batch,
    side_stride,
    query_side_stride,
    read_side_stride,
    num_rows,
    num_tokens,
    num_lines,
    width,
    lines_per_part,
    row_blocks,
    column_blocks,
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
    """What a block of rows reads of some lines, by weights exp2(score − running maximum).

    Sums over all tokens are rescaled whenever the maximum grows. The sum of a line is left as it
    is, with the maximum of its time in `line_peaks`.
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
    at = (example * parts + part) * num_rows
    at_line = (example * num_rows + row) * num_lines
    q = load_tile(query + example * query_batch, row, is_row, K, KX, BLOCK_X) * LOG2E
    q_side, q_columns = q, tl.zeros((BLOCK_R, BLOCK_M), tl.float32)
    if KY > 0:
        start = query_side + example * query_side_batch
        q_side = load_tile(start, row, is_row, query_side_stride, KY, BLOCK_Y) * LOG2E
    peak = tl.full((BLOCK_R,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_R, BLOCK_X), tl.float32)
    total_side = tl.zeros((BLOCK_R, BLOCK_Y), tl.float32)
    for first_column in range(0, width, BLOCK_M):
        column = first_column + tl.arange(0, BLOCK_M)
        total_columns = tl.zeros((BLOCK_R, BLOCK_M), tl.float32)
        if IS_GRID:
            # What this program wrote of its lines is about to be read.
            tl.debug_barrier()
            left = width - first_column
            start = query_columns + first_column
            q_columns = load_tile(start, row, is_row, width, left, BLOCK_M) * LOG2E
        for line in range(first_line, last_line):
            first = tl.full((), width, tl.int64) * line
            inside = (column < width) & (first + column < num_tokens)
            x, y, factor, keep = load_tokens(
                content, side, rho, first, column, inside, side_stride,
                K, KX, KY, BLOCK_X, BLOCK_Y, IS_GRID, HAS_CODE,
            )  # fmt: skip
            if IS_GRID:
                q = with_line_term(q, line, row, is_row, query_lines, num_lines, LOG2E, KX, BLOCK_X)
            scores = scores_of(q, q_side, q_columns, x, y, factor, KY, IS_GRID, PRECISION)
            scores = tl.where(keep[None, :], scores, float("-inf"))
            highest = tl.maximum(peak, tl.max(scores, 1))
            # Nothing to attend to so far: there is nothing to rescale either.
            shift = tl.where(highest == float("-inf"), 0.0, highest)
            weights = tl.exp2(scores - shift[:, None])
            fade = tl.exp2(peak - shift)[:, None]
            peak = highest
            here = tl.dot(weights, x, input_precision=PRECISION)
            total = total * fade + here
            if KY > 0:
                total_side = tl.dot(weights, y, total_side * fade, input_precision=PRECISION)
            if IS_GRID:
                total_columns = total_columns * fade + weights * factor[None, :]
                seen = is_row & (first_column > 0)
                before = tl.load(line_peaks + at_line + line, seen, other=float("-inf"))
                so_far = tl.load(read_lines + at_line + line, seen, other=0.0)
                so_far = so_far * tl.exp2(before - shift) + channel_of_rho(here, KX, BLOCK_X)
                tl.store(read_lines + at_line + line, so_far, is_row)
                tl.store(line_peaks + at_line + line, peak, is_row)
        if IS_GRID:
            store_tile(
                read_columns + at * width + first_column, row, is_row, width,
                width - first_column, total_columns, BLOCK_M,
            )  # fmt: skip
        at_block = at * column_blocks + first_column // BLOCK_M * num_rows
        tl.store(peaks + at_block + row, peak, is_row)
    store_tile(read + at * K, row, is_row, K, KX, total, BLOCK_X)
    if KY > 0:
        start = read_side + at * read_side_stride
        store_tile(start, row, is_row, read_side_stride, KY, total_side, BLOCK_Y)
