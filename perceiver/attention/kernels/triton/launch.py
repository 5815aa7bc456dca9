"""Structured attention on a GPU: how its kernels are laid out, launched, and their parts merged."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from perceiver.attention.kernels.triton.backward import (
    backward_rows_kernel,
    backward_tokens_kernel,
)
from perceiver.attention.kernels.triton.blocks import Blocks, blocks
from perceiver.attention.kernels.triton.forward import forward_kernel
from perceiver.ops.matmul import rounds_float32

# Programs for each multiprocessor: fewer rows than that, and the tokens are split among more.
PROGRAMS = 2
# Lines that are worth a program of their own.
LEAST_LINES = 4

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def supports(content: Tensor, code: Tensor | None, query_columns: Tensor | None) -> bool:
    """Whether the kernels take tokens of these types and widths."""
    if content.dtype not in _DTYPES or content.numel() == 0:
        return False
    code_width = 0 if code is None else code.shape[-1]
    width = 0 if query_columns is None else query_columns.shape[-1]
    return blocks(content.shape[-1], code_width, width) is not None


def precision(content: Tensor) -> str:
    """How the matrix units multiply: exact to float32's rounding unless the user allows less.

    Three products in TF32 are as good as one in float32, and many times faster. Half-precision
    tokens lose nothing in TF32; that it rounds the weights, they would not notice.
    """
    is_device = content.device.type == "cuda"
    if torch.version.hip or (is_device and torch.cuda.get_device_capability(content.device) < (8,)):
        return "ieee"
    if content.dtype != torch.float32 or rounds_float32():
        return "tf32"
    return "tf32x3"


def constants(
    cut: Blocks, channels: int, *, is_grid: bool, has_code: bool, precision: str
) -> dict[str, Any]:
    """What the kernels are compiled for."""
    return {
        "K": channels,
        "KX": cut.x[0],
        "KY": cut.y[0],
        "BLOCK_R": cut.rows,
        "BLOCK_M": cut.tokens,
        "BLOCK_X": cut.x[1],
        "BLOCK_Y": cut.y[1],
        "IS_GRID": is_grid,
        "HAS_CODE": has_code,
        "PRECISION": precision,
    }


class _Call:
    """The arguments that the kernels share, and the cut of the work into programs."""

    def __init__(
        self,
        query: Tensor,
        content: Tensor,
        rho: Tensor | None,
        code: Tensor | None,
        query_tail: Tensor | None,
        query_columns: Tensor | None,
        *,
        for_tokens: bool = False,
    ) -> None:
        self.batch, self.tokens, self.channels = content.shape
        self.rows = query.shape[1]
        self.is_grid, self.has_code = query_columns is not None, code is not None
        self.code = 0 if code is None else code.shape[-1]
        columns = 0 if query_columns is None else query_columns.shape[-1]
        cut = blocks(self.channels, self.code, columns, for_tokens=for_tokens)
        assert cut is not None, "supports() admits what blocks() can cut"
        self.cut = cut
        self.width = columns or cut.tokens
        self.lines = math.ceil(self.tokens / self.width)
        self.row_blocks = math.ceil(self.rows / cut.rows)
        self.column_blocks = math.ceil(self.width / cut.tokens)
        self._processors = _processors(content.device)

        query, content = query.contiguous(), content.contiguous()
        # Where there is no tensor, a kernel never reads: any other stands in.
        self.rho = content if rho is None else rho.contiguous()
        tail = query if query_tail is None else query_tail.contiguous()
        by_column = query if query_columns is None else query_columns.contiguous()
        if code is not None:
            self.side, query_side, self.side_batch, stride = code.contiguous(), tail, 0, self.code
        else:
            self.side, query_side = self.rest(content), self.rest(query)
            self.side_batch, stride = self.tokens * self.channels, self.channels
        self.query, self.content = query, content
        self.inputs = (query, content, self.side, self.rho, query_side, tail, by_column)
        self.strides = (
            *(_batch_stride(x) for x in (query, query_side, tail, by_column)),
            self.side_batch,
            stride,
        )
        self.side_stride = stride
        self.constants = constants(
            cut,
            self.channels,
            is_grid=self.is_grid,
            has_code=self.has_code,
            precision=precision(content),
        )
        self.constants |= {"num_warps": cut.warps, "num_stages": cut.stages}

    def rest(self, content: Tensor) -> Tensor:
        """The second part of a matrix of content channels, in place."""
        return content[..., self.cut.x[0] :] if self.cut.y[0] else content

    def share(self, programs: int, most: int) -> int:
        """Into how many parts to split the work of so few programs, at most."""
        return max(1, min(most, math.ceil(PROGRAMS * self._processors / programs)))

    def split_lines(self) -> tuple[int, int]:
        """(lines of a part, parts)."""
        parts = self.share(self.batch * self.row_blocks, self.lines // LEAST_LINES)
        lines = math.ceil(self.lines / parts)
        return lines, math.ceil(self.lines / lines)

    def read_parts(self, parts: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Room for what parts read: (content, code or the rest of content, lines, columns)."""
        b, r = self.batch, self.rows
        read = self._room(b, parts, r, self.channels)
        side = self._room(b, parts, r, self.code) if self.has_code else self.rest(read)
        if not self.is_grid:
            return read, side, read, read
        return read, side, self._room(b, r, self.lines), self._room(b, parts, r, self.width)

    def _room(self, *shape: int) -> Tensor:
        return self.content.new_empty(shape, dtype=torch.float32)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        return self.rows, self.tokens, self.lines, self.width

    def empty(self) -> Tensor:
        """What stands for sums over positions where there are none."""
        return self._room(self.batch, self.rows, 0)


def _batch_stride(query: Tensor) -> int:
    """From an example's queries to the next one's: 0 if one example serves all."""
    return 0 if query.shape[0] == 1 else query.stride(0)


def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 8  # in Triton's interpreter
    return torch.cuda.get_device_properties(device).multi_processor_count


def forward(
    query: Tensor,
    content: Tensor,
    rho: Tensor | None,
    code: Tensor | None,
    query_tail: Tensor | None,
    query_columns: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The kernel of `perceiver::structured`: see `structured.attend`."""
    call = _Call(query, content, rho, code, query_tail, query_columns)
    lines_per_part, parts = call.split_lines()
    read, side, by_line, by_column = call.read_parts(parts)
    peaks = read.new_empty(call.batch, parts, call.column_blocks, call.rows)
    line_peaks = torch.empty_like(by_line) if call.is_grid else read
    forward_kernel[(call.batch * parts * call.row_blocks,)](
        *call.inputs, read, side, by_line, by_column, peaks, line_peaks,
        *call.strides, call.side_stride, call.side_stride, *call.sizes,
        lines_per_part, call.row_blocks, call.column_blocks, parts, **call.constants,
    )  # fmt: skip
    # Parts are merged by their maxima, in powers of two; those after the last column are final.
    peak = peaks[:, :, -1].amax(1)
    shift = peak.masked_fill(peak == float("-inf"), 0.0)
    fades = torch.exp2(peaks - shift[:, None, None])
    fade = fades[:, :, -1, :, None]
    merged = (read * fade).sum(1)
    total = merged[..., -1:].clone()
    lse = peak * math.log(2) + total.squeeze(-1).log()
    total.masked_fill_(total == 0, 1.0)
    tail, columns = call.empty(), call.empty()
    if call.has_code:
        tail = (side * fade).sum(1).div_(total)
    elif call.is_grid:
        tail = by_line.mul_(line_peaks.sub_(shift[..., None]).exp2_()).div_(total)
        by_block = fades.mT.repeat_interleave(call.cut.tokens, -1)[..., : call.width]
        columns = by_column.mul_(by_block).sum(1).div_(total)
    return merged.div_(total), tail, columns, lse


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
    """The kernel of `perceiver::structured_backward`. Nothing is added up in an order of chance."""
    arguments = query, content, rho, code, query_tail, query_columns
    grads = grad_read, grad_tail, grad_columns, lse, offset
    call = _Call(*arguments)
    lines_per_part, parts = call.split_lines()
    d_query, d_side, d_lines, d_columns = call.read_parts(parts)
    backward_rows_kernel[(call.batch * parts * call.row_blocks,)](
        *call.inputs, *_grads(call, *grads), d_query, d_side, d_lines, d_columns,
        *call.strides, call.side_stride, *call.sizes,
        lines_per_part, call.row_blocks, parts, **call.constants,
    )  # fmt: skip
    d_tail = _sum(d_side) if call.has_code else d_lines if call.is_grid else call.empty()
    d_columns = _sum(d_columns) if call.is_grid else call.empty()
    if for_tokens:
        of_tokens = _backward_tokens(_Call(*arguments, for_tokens=True), rho, code, *grads)
    else:
        of_tokens = content.new_empty(0), content.new_empty(0), content.new_empty(0)
    return _sum(d_query), d_tail, d_columns, *of_tokens


def _sum(parts: Tensor) -> Tensor:
    return parts.sum(1) if parts.shape[1] > 1 else parts.squeeze(1)


def _grads(
    call: _Call,
    grad_read: Tensor,
    grad_tail: Tensor | None,
    grad_columns: Tensor | None,
    lse: Tensor,
    offset: Tensor,
) -> tuple[Tensor, ...]:
    """(of x, of the side, of lines, of columns, log-sum-exp, offset), laid out like the queries."""
    read = grad_read.contiguous()
    tail = read if grad_tail is None else grad_tail.contiguous()
    side = tail if call.has_code else call.rest(read)
    columns = read if grad_columns is None else grad_columns.contiguous()
    return read, side, tail, columns, lse.contiguous(), offset.contiguous()


def _backward_tokens(
    call: _Call, rho: Tensor | None, code: Tensor | None, *grads: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    programs = call.lines * call.column_blocks
    groups = call.batch
    if call.has_code:
        groups = call.share(programs, call.batch)
    per_group = math.ceil(call.batch / groups)
    groups = math.ceil(call.batch / per_group)
    d_content = torch.empty_like(call.content)
    d_rho = call.content.new_empty(0) if rho is None else torch.zeros_like(call.rho)
    d_code = call.content.new_empty(0)
    if call.has_code:
        d_code = d_content.new_empty(groups, call.tokens, call.code, dtype=torch.float32)
    backward_tokens_kernel[(programs * groups,)](
        *call.inputs, *_grads(call, *grads), d_content, d_code, d_rho,  # type: ignore[arg-type]
        *call.strides, call.side_stride, *call.sizes,
        call.batch, per_group, call.column_blocks, **call.constants,
    )  # fmt: skip
    if code is not None:
        d_code = d_code.sum(0).to(code.dtype)
    return d_content, d_rho, d_code
