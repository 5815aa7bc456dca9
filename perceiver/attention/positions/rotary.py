"""Rotary positions (axis 2): queries and keys turned by angles that grow with their position."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from perceiver.attention.positions.position import Position
from perceiver.shapes import Float, Int

LAYOUTS = ("interleaved", "half")


def rope_angles(
    positions: Int[Tensor, " n"], dim: int, *, base: float = 10000.0, dtype: torch.dtype
) -> Float[Tensor, "n half"]:
    """p · base^(−2m/dim) for m = 0 … dim/2 − 1 (Su et al. 2021, eq. 15)."""
    exponent = torch.arange(0, dim, 2, device=positions.device, dtype=dtype) / dim
    return positions[:, None].to(dtype) * base**-exponent


def rotate(
    x: Float[Tensor, "b h n d"],
    positions: Int[Tensor, " n"],
    *,
    layout: str = "interleaved",
    base: float = 10000.0,
    rotary_dim: int | None = None,
) -> Float[Tensor, "b h n d"]:
    """x with pairs of its first `rotary_dim` channels rotated (Su et al. 2021, eq. 34).

    Args:
        x: queries or keys.
        positions: theirs.
        layout: which channels are a pair: (2m, 2m+1) "interleaved", or (m, m + r/2) "half". They
            are a permutation apart, so the layout is part of a checkpoint.
        base: of the wavelengths.
        rotary_dim: r, even; None = all channels.
    """
    dim = x.shape[-1] if rotary_dim is None else rotary_dim
    # In half precision an angle of 1000 is off by whole radians.
    wide = x.double() if x.dtype == torch.float64 else x.float()
    angles = rope_angles(positions, dim, base=base, dtype=wide.dtype)
    cos, sin = angles.cos(), angles.sin()
    turned, rest = wide[..., :dim], wide[..., dim:]
    if layout == "half":
        first, second = turned.chunk(2, -1)
        pairs = [first * cos - second * sin, first * sin + second * cos]
        turned = torch.cat(pairs, -1)
    else:
        first, second = turned[..., 0::2], turned[..., 1::2]
        pairs = [first * cos - second * sin, first * sin + second * cos]
        turned = torch.stack(pairs, -1).flatten(-2)
    return torch.cat([turned, rest], -1).to(x.dtype)


class RoPE(Position):
    """Rotary position embedding: q_i·k_j depends on p_i − j alone (Su et al. 2021); see `rotate`.

    Args:
        query_dim: width of a head.
        layout: "interleaved" (the paper, GPT-J) or "half" (GPT-NeoX, Llama).
        base: of the wavelengths.
        rotary_dim: channels of a head that turn; None = all.
    """

    name = "rope"
    compares_widths = True

    def __init__(
        self,
        *,
        query_dim: int,
        layout: str = "interleaved",
        base: float = 10000.0,
        rotary_dim: int | None = None,
    ) -> None:
        super().__init__()
        dim = query_dim if rotary_dim is None else rotary_dim
        if layout not in LAYOUTS:
            raise ValueError(f"layout={layout!r} must be one of {', '.join(LAYOUTS)}")
        if dim % 2 or not 0 < dim <= query_dim:
            raise ValueError(
                f"rope turns pairs of channels: rotary_dim={dim} must be even and at most the "
                f"head's width {query_dim}; set rotary_dim, or qk_dim and num_heads"
            )
        self.layout, self.base, self.rotary_dim = layout, base, dim

    def rotate(
        self, query: Tensor, key: Tensor, query_positions: Tensor, key_positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        turn = partial(rotate, layout=self.layout, base=self.base, rotary_dim=self.rotary_dim)
        return turn(query, query_positions), turn(key, key_positions)
