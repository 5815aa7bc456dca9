"""Relative positions (axis 2) that queries are compared with: Shaw, Transformer-XL, SASA."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from perceiver.attention.patterns import Local2d, PatternMaker
from perceiver.attention.patterns.grids import check_grid, coordinates, require_grid
from perceiver.attention.positions.position import Position
from perceiver.ops.checks import check_sizes
from perceiver.ops.init import lecun_linear
from perceiver.shapes import Float, Int


class RelativeTable(Position):
    """(q·(k_j + a^K_c)) · scale, + a^V_c on the values, c = clip(j − p_i, −m, m).

    Shaw et al. 2018, eq. 3 and 4. The tables are shared by all heads (3.3).

    Args:
        query_dim: width of a head's queries.
        value_dim: width of a head's values.
        max_distance: m.
        on_values: whether there is an a^V; it needs the dense kernel.
    """

    has_bias = True

    def __init__(
        self, *, query_dim: int, value_dim: int, max_distance: int = 16, on_values: bool = True
    ) -> None:
        super().__init__()
        check_sizes(max_distance=max_distance)
        self.max_distance = max_distance
        self.has_read = on_values
        self.keys = nn.Parameter(torch.randn(2 * max_distance + 1, query_dim) * query_dim**-0.5)
        self.values = (
            nn.Parameter(torch.randn(2 * max_distance + 1, value_dim) * value_dim**-0.5)
            if on_values
            else None
        )

    def _index(self, query_positions: Tensor, key_positions: Tensor) -> Int[Tensor, "q k"]:
        m = self.max_distance
        return (key_positions - query_positions[:, None]).clamp(-m, m) + m

    def bias(
        self,
        query: Tensor,
        query_positions: Tensor,
        key_positions: Tensor,
        *,
        scale: float | Tensor = 1.0,
    ) -> Tensor:
        # q·a for the 2m + 1 rows first: no (q, k, d) tensor is made.
        products = (query * scale) @ self.keys.t().to(query.dtype)
        index = self._index(query_positions, key_positions)
        return products.gather(-1, index.expand(*products.shape[:2], -1, -1))

    def read(
        self, weights: Tensor, query_positions: Tensor, key_positions: Tensor
    ) -> Tensor | None:
        if self.values is None:
            return None
        index = self._index(query_positions, key_positions).expand_as(weights)
        mass = weights.new_zeros(*weights.shape[:-1], len(self.values))
        return mass.scatter_add(-1, index, weights) @ self.values.to(weights.dtype)


def sinusoid(
    positions: Int[Tensor, " n"], dim: int, dtype: torch.dtype
) -> Float[Tensor, "n {dim}"]:
    """[sin(p ω_m), cos(p ω_m)], ω_m = 10000^(−2m/dim), all sines first (Dai et al. 2019, code)."""
    frequency = 10000.0 ** -(torch.arange(0, dim, 2, device=positions.device, dtype=dtype) / dim)
    angles = positions[:, None].to(dtype) * frequency
    return torch.cat([angles.sin(), angles.cos()[:, : dim // 2]], -1)


class TransformerXL(Position):
    """((q + u)·k_j + (q + v)·r_{p_i − j}) · scale, r = W_r sinusoid (Dai et al. 2019, 3.3).

    Args:
        num_heads: heads, each with its u and v.
        query_dim: width of a head.
    """

    name = "transformer_xl"
    has_bias = True

    def __init__(self, *, num_heads: int, query_dim: int) -> None:
        super().__init__()
        self.num_heads, self.sinusoid_dim = num_heads, num_heads * query_dim
        if self.sinusoid_dim % 2:
            raise ValueError(
                f"transformer_xl makes sines and cosines in pairs: num_heads × head width = "
                f"{self.sinusoid_dim} must be even; set qk_dim"
            )
        self.u = nn.Parameter(torch.zeros(num_heads, 1, query_dim))
        self.v = nn.Parameter(torch.zeros(num_heads, 1, query_dim))
        self.to_relative = lecun_linear(self.sinusoid_dim, self.sinusoid_dim, bias=False)

    def rotate(
        self, query: Tensor, key: Tensor, query_positions: Tensor, key_positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        return query + self.u.to(query.dtype), key

    def bias(
        self,
        query: Tensor,
        query_positions: Tensor,
        key_positions: Tensor,
        *,
        scale: float | Tensor = 1.0,
    ) -> Tensor:
        # Positions are consecutive, so q + k − 1 distances occur, from the first query to the last
        # key upwards.
        nearest = query_positions[:1] - key_positions[-1:]
        count = query_positions.shape[0] + key_positions.shape[0] - 1
        distances = nearest + torch.arange(count, device=query.device)
        dtype = torch.promote_types(query.dtype, torch.float32)
        codes = sinusoid(distances, self.sinusoid_dim, dtype).to(self.to_relative.weight.dtype)
        relative = self.to_relative(codes).unflatten(-1, (self.num_heads, -1)).transpose(0, 1)
        products = ((query + self.v.to(query.dtype)) * scale) @ relative.to(query.dtype).mT
        index = query_positions[:, None] - key_positions - nearest
        return products.gather(-1, index.expand(*products.shape[:2], -1, -1))


class RelativeTable2d(Position):
    """q·r · scale, r = [row_{a−i}, column_{b−j}], d/2 channels each and one table per head.

    Stand-alone self-attention (Ramachandran et al. 2019, eq. 3), beside the pattern `local2d` of
    the same grid, whose neighbourhoods it must cover. Beside other patterns, elements further off
    count as those at the edge of the table.

    Args:
        num_heads: heads.
        query_dim: width of a head; even.
        grid: (height, width) of the elements.
        size: k of the k × k neighbourhood; odd.
    """

    name = "relative_table2d"
    has_bias = True
    knows_padding = True

    def __init__(
        self, *, num_heads: int, query_dim: int, grid: Sequence[int] | None = None, size: int = 7
    ) -> None:
        super().__init__()
        self.grid = require_grid("position=relative_table2d", grid)
        if size < 1 or size % 2 == 0:
            raise ValueError(f"relative_table2d has size={size}: it must be odd")
        if query_dim % 2:
            raise ValueError(
                f"relative_table2d halves a head's width {query_dim}: it must be even; set qk_dim"
            )
        self.size = size
        self.rows = nn.Parameter(torch.randn(num_heads, size, query_dim // 2))
        self.columns = nn.Parameter(torch.randn(num_heads, size, query_dim // 2))

    def check(self, num_queries: int, num_keys: int) -> None:
        check_grid("position=relative_table2d", self.grid, num_queries, num_keys)

    def check_pattern(self, pattern: PatternMaker) -> None:
        for local in pattern.members():
            if not isinstance(local, Local2d):
                continue
            if list(local.grid or ()) != list(self.grid):
                raise ValueError(
                    f"position=relative_table2d has the grid {list(self.grid)} and pattern=local2d "
                    f"{list(local.grid or ())}: set both to the picture's [height, width]"
                )
            if local.size > self.size:
                raise ValueError(
                    f"position=relative_table2d has size={self.size}, less than the size="
                    f"{local.size} of pattern=local2d: give both the same size"
                )

    def bias(
        self,
        query: Tensor,
        query_positions: Tensor,
        key_positions: Tensor,
        *,
        scale: float | Tensor = 1.0,
    ) -> Tensor:
        reach = self.size // 2
        # Keys past the grid are its padding.
        cells = coordinates(self.grid, reach, query.device)
        offset = cells[key_positions] - cells[query_positions][:, None]
        index = offset.clamp(-reach, reach) + reach
        halves = (query * scale).chunk(2, -1)
        bias = query.new_zeros(())
        for half, table, axis in zip(halves, (self.rows, self.columns), (0, 1), strict=True):
            products = half @ table.to(query.dtype).mT
            bias = bias + products.gather(-1, index[..., axis].expand(*products.shape[:2], -1, -1))
        return bias
