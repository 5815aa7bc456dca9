"""Position biases (axis 2) that no query changes: ALiBi, T5's buckets, Swin's table."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from perceiver.attention.patterns.grids import check_grid, require_grid
from perceiver.attention.positions.position import Position
from perceiver.shapes import Float, Int


def alibi_slopes(num_heads: int) -> Float[Tensor, " h"]:
    """m_h = 2^(−8h/H), h = 1 … H (Press et al. 2022, 3).

    For an H that is not a power of two: the slopes of the lower power, then every other one of
    twice that power, as in the released code.
    """
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * (h + 1) / power) for h in range(power)]
    slopes += [2 ** (-8 * (h + 1) / (2 * power)) for h in range(0, 2 * power, 2)]
    return torch.tensor(slopes[:num_heads], dtype=torch.float64)


class ALiBi(Position):
    """bias = −m_h |p_i − j|: the further, the less, at a pace per head (Press et al. 2022).

    Args:
        num_heads: heads.
    """

    name = "alibi"
    has_bias = True

    def __init__(self, *, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads

    def bias(
        self,
        query: Tensor,
        query_positions: Tensor,
        key_positions: Tensor,
        *,
        scale: float | Tensor = 1.0,
    ) -> Tensor:
        distance = (query_positions[:, None] - key_positions).abs()
        slopes = alibi_slopes(self.num_heads).to(query.device)
        bias = -slopes[:, None, None] * distance
        return bias[None].to(torch.promote_types(query.dtype, torch.float32))


def t5_bucket(
    offset: Int[Tensor, "..."],
    *,
    num_buckets: int = 32,
    max_distance: int = 128,
    bidirectional: bool = True,
) -> Int[Tensor, "..."]:
    """The bucket of an offset r = j − p_i (Raffel et al. 2020, 2.1; released code).

    Bidirectional: half the buckets for each sign. Then one bucket a distance up to half of those,
    and logarithmically wider ones up to `max_distance`, which shares the last with all beyond.
    """
    bucket = torch.zeros_like(offset)
    if bidirectional:
        num_buckets //= 2
        bucket = bucket + (offset > 0) * num_buckets
        distance = offset.abs()
    else:
        distance = (-offset).clamp_min(0)
    exact = num_buckets // 2
    ratio = torch.log(distance.clamp_min(1).float() / exact) / math.log(max_distance / exact)
    far = (exact + (ratio * (num_buckets - exact)).long()).clamp_max(num_buckets - 1)
    return bucket + torch.where(distance < exact, distance, far)


class T5Buckets(Position):
    """bias = table[bucket(j − p_i), head] (Raffel et al. 2020); see `t5_bucket`.

    Args:
        num_heads: heads.
        num_buckets: rows of the table.
        max_distance: distances from here on share a bucket.
        bidirectional: whether keys after the query have buckets of their own.
    """

    has_bias = True

    def __init__(
        self,
        *,
        num_heads: int,
        num_buckets: int = 32,
        max_distance: int = 128,
        bidirectional: bool = True,
    ) -> None:
        super().__init__()
        least = 4 if bidirectional else 2
        if num_buckets < least or max_distance <= num_buckets // least:
            raise ValueError(
                f"num_buckets={num_buckets} must be {least} or more, and max_distance="
                f"{max_distance} more than the {num_buckets // least} distances counted exactly"
            )
        self.num_buckets, self.max_distance = num_buckets, max_distance
        self.bidirectional = bidirectional
        self.table = nn.Parameter(torch.empty(num_buckets, num_heads))
        nn.init.trunc_normal_(self.table, std=0.02)

    def bias(
        self,
        query: Tensor,
        query_positions: Tensor,
        key_positions: Tensor,
        *,
        scale: float | Tensor = 1.0,
    ) -> Tensor:
        bucket = t5_bucket(
            key_positions - query_positions[:, None],
            num_buckets=self.num_buckets,
            max_distance=self.max_distance,
            bidirectional=self.bidirectional,
        )
        return self.table[bucket].permute(2, 0, 1)[None]


class SwinTable(Position):
    """bias = table[(dy + wh − 1)(2 ww − 1) + dx + ww − 1, head], query minus key (Liu et al. 2021).

    Queries and keys are the wh × ww elements of one window, row by row; the bias is that of eq. 4.

    Args:
        num_heads: heads.
        grid: (wh, ww).
    """

    has_bias = True

    def __init__(self, *, num_heads: int, grid: Sequence[int] | None = None) -> None:
        super().__init__()
        self.grid = height, width = require_grid("position=swin_table", grid)
        self.table = nn.Parameter(torch.empty((2 * height - 1) * (2 * width - 1), num_heads))
        nn.init.trunc_normal_(self.table, std=0.02)

    def check(self, num_queries: int, num_keys: int) -> None:
        check_grid("position=swin_table", self.grid, num_queries, num_keys)

    def bias(
        self,
        query: Tensor,
        query_positions: Tensor,
        key_positions: Tensor,
        *,
        scale: float | Tensor = 1.0,
    ) -> Tensor:
        height, width = self.grid
        dy = query_positions[:, None] // width - key_positions // width
        dx = query_positions[:, None] % width - key_positions % width
        index = (dy + height - 1) * (2 * width - 1) + dx + width - 1
        return self.table[index].permute(2, 0, 1)[None]
