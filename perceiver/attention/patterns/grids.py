"""Elements of a two-dimensional grid, row by row, and the cells of padding around it."""

from __future__ import annotations

import torch
from torch import Tensor

from perceiver.shapes import Int


def padding_size(grid: tuple[int, int], halo: int) -> int:
    """Cells of padding around a grid, `halo` wide."""
    height, width = grid
    return (height + 2 * halo) * (width + 2 * halo) - height * width


def coordinates(
    grid: tuple[int, int], halo: int = 0, device: torch.device | None = None
) -> Int[Tensor, "cells 2"]:
    """(row, column) of each cell: those of the grid row by row, then those of the padding."""
    height, width = grid
    rows = torch.arange(-halo, height + halo, device=device)
    columns = torch.arange(-halo, width + halo, device=device)
    cells = torch.cartesian_prod(rows, columns)
    inside = ((cells >= 0) & (cells < torch.tensor(grid, device=device))).all(-1)
    order = torch.argsort((~inside).int(), stable=True)
    return cells[order]


def require_grid(name: str, grid: object) -> tuple[int, int]:
    """The grid as (height, width).

    Raises:
        ValueError: for anything but two positive numbers.
    """
    sizes = list(grid) if isinstance(grid, (list, tuple)) else []
    if len(sizes) != 2 or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ValueError(
            f"{name} needs grid=[height, width] of the elements that attend to each other (it is "
            f"self-attention over a picture), and was given grid={grid!r}: set it, or use "
            "attention=perceiver"
        )
    return sizes[0], sizes[1]


def check_grid(name: str, grid: tuple[int, int], num_queries: int, num_keys: int) -> None:
    """Raises ValueError unless the grid's cells are both the queries and the keys."""
    cells = grid[0] * grid[1]
    if num_queries != cells or num_keys != cells:
        raise ValueError(
            f"{name} has a grid of {grid[0]} × {grid[1]} = {cells} elements for "
            f"{num_queries} queries and {num_keys} keys: it is self-attention over that grid; set "
            "its grid to the picture's size, or use attention=perceiver"
        )
