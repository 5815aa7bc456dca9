"""How the Triton kernels of structured attention cut their work; of use without Triton as well."""

from __future__ import annotations

from dataclasses import dataclass

# Channels of queries and tokens, padded to blocks, that the 99 KiB of shared memory hold which the
# smallest chips have. Wider products fill a GPU chunk by chunk.
WIDEST = 80
# The least that the matrix units multiply.
LEAST_BLOCK = 16


@dataclass(frozen=True)
class Blocks:
    """How the two parts of tokens and queries, and the work, are cut into blocks.

    Args:
        x: channels of the content in the first part, and their block; a grid's ρ comes after them.
        y: channels of the second part, the rest of the content or the code, and their block.
        rows, tokens: of a program's block.
        warps: of a program.
        stages: blocks that are loaded ahead, at the cost of shared memory.
    """

    x: tuple[int, int]
    y: tuple[int, int]
    rows: int
    tokens: int
    warps: int
    stages: int


def _block(channels: int) -> int:
    return max(LEAST_BLOCK, 1 << (channels - 1).bit_length())


def _split_content(channels: int, is_grid: bool) -> tuple[tuple[int, int], tuple[int, int]]:
    """Content in one block, or a large and a small one where that pads less: 264 = 256 + 8."""
    needed = channels + is_grid
    whole = _block(needed)
    large = whole // 2
    if whole > LEAST_BLOCK and (small := _block(needed - large)) < large:
        return (large - is_grid, large), (needed - large, small)
    return (channels, whole), (0, LEAST_BLOCK)


def blocks(channels: int, code: int, width: int, *, for_tokens: bool = False) -> Blocks | None:
    """The blocks for tokens of so many channels; None if they are too wide for these kernels.

    Args:
        channels: of the content.
        code: channels of the position code, 0 = none.
        width: columns of the grid, 0 = none.
        for_tokens: whether a program holds tokens and streams rows, not the reverse.
    """
    if code:
        x, y = (channels, _block(channels)), (code, _block(code))
    else:
        x, y = _split_content(channels, width > 0)
    held = x[1] + (y[1] if y[0] else 0)
    if held > WIDEST:
        return None
    # 64 rows are what the matrix units of Hopper take at once; narrower blocks of tokens leave the
    # sums over a grid's columns in registers, wide tokens in shared memory.
    is_wide = held > 64
    tokens = 32 if width or is_wide else 64
    if width:
        tokens = min(tokens, _block(width))
    rows = 32 if is_wide and for_tokens else 64
    return Blocks(x, y, rows, tokens, warps=4, stages=1 if is_wide or for_tokens else 2)
