"""The columns of a table as a byte array: a token per column, with the column's own embedding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import torch
from torch import Tensor, nn

from perceiver.adapters.adapter import Adapter
from perceiver.shapes import Bool, Float, Int
from perceiver.types import Segment

ENCODINGS = ("linear", "periodic", "piecewise")


class NumberAdapter(Adapter):
    """One token per number: its encoding times a matrix of its column, plus a vector of the column.

    Each number comes as channels: its standardised value, others that describe it (whether it is
    missing, the weekday of a date). The value is encoded (Gorishniy et al. 2022, "On Embeddings for
    Numerical Features in Tabular Deep Learning") as it is, "linear"; as sines and cosines of
    learned frequencies, "periodic" (3.3); or "piecewise" linearly (3.2), between bins that hold as
    many values each where values are standard normal.

    The other channels start without effect, so that what training never shows, a missing number
    say, is read as the mean.

    Args:
        length: numbers of a row.
        channels: numbers that come for each.
        dim: width of a token.
        encoding: "linear", "periodic" or "piecewise".
        num_features: frequencies, or bins, of each column.
        frequency_std: of the first frequencies, in cycles per unit.

    Raises:
        ValueError: for an unknown encoding, or no features; in `forward`, for other shapes.
    """

    edges: Tensor

    def __init__(
        self,
        *,
        length: int,
        channels: int = 2,
        dim: int = 32,
        encoding: str = "piecewise",
        num_features: int = 8,
        frequency_std: float = 0.1,
    ) -> None:
        super().__init__(content_dim=dim, shape=[length], position=None)
        if encoding not in ENCODINGS:
            raise ValueError(f"encoding={encoding!r} must be one of {', '.join(ENCODINGS)}")
        if num_features < 2:
            raise ValueError(f"num_features={num_features} must be at least 2")
        self.length, self.value_channels, self.encoding = length, channels, encoding
        width = {"linear": 1, "periodic": 1 + 2 * num_features, "piecewise": num_features}[encoding]
        if encoding == "periodic":
            frequencies = torch.empty(length, num_features)
            nn.init.trunc_normal_(frequencies, std=frequency_std, a=-1e3, b=1e3)
            self.frequencies = nn.Parameter(frequencies)
        elif encoding == "piecewise":
            inner = [NormalDist().inv_cdf(n / num_features) for n in range(1, num_features)]
            edges = [-2.5, *inner, 2.5] if num_features < 100 else [-4.0, *inner, 4.0]
            self.register_buffer("edges", torch.tensor(edges), persistent=False)
        bound = 1 / math.sqrt(dim)
        weight = torch.zeros(length, width + channels - 1, dim)
        nn.init.uniform_(weight[:, :width], -bound, bound)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.empty(length, dim).uniform_(-bound, bound))

    def forward(
        self, values: Float[Tensor, "b m c"], mask: Bool[Tensor, "b m"] | None = None
    ) -> Segment:
        if values.shape[1:] != (self.length, self.value_channels):
            raise ValueError(
                f"numbers have shape {tuple(values.shape)}; expected a batch, {self.length} "
                f"numbers and {self.value_channels} channels"
            )
        features = torch.cat([self.encode(values[..., 0]), values[..., 1:]], dim=-1)
        content = torch.einsum("bmf,mfd->bmd", features, self.weight) + self.bias
        return self.segment(content, (self.length,), mask)

    def encode(self, values: Float[Tensor, "b m"]) -> Float[Tensor, "b m f"]:
        """The encoding of standardised values."""
        values = values[..., None]
        if self.encoding == "linear":
            return values
        if self.encoding == "periodic":
            angles = 2 * math.pi * self.frequencies * values
            return torch.cat([values, angles.sin(), angles.cos()], dim=-1)
        low, high = self.edges[:-1], self.edges[1:]
        # The outer bins go on without end: two values beyond them are not the same.
        shares = (values - low) / (high - low)
        first, last = shares[..., :1].clamp(max=1), shares[..., -1:].clamp(min=0)
        return torch.cat([first, shares[..., 1:-1].clamp(0, 1), last], dim=-1)


class CategoryAdapter(Adapter):
    """One token per category: a vector of its value plus one of its column.

    Ids count through all columns. The first two of a column are a missing value and one that
    training does not know; their vectors start at zero, so that either is read as the column alone.

    Args:
        sizes: ids of each column.
        dim: width of a token.

    Raises:
        ValueError: for a column of fewer than two ids; in `forward`, for values that are not ids
            (b, columns).
    """

    column: Tensor

    def __init__(self, *, sizes: Sequence[int], dim: int = 32) -> None:
        super().__init__(content_dim=dim, shape=[len(sizes)], position=None)
        if min(sizes, default=2) < 2:
            raise ValueError(f"sizes={list(sizes)}: each column has at least two ids")
        self.length, self.num_ids = len(sizes), sum(sizes)
        column = torch.arange(self.length).repeat_interleave(torch.tensor(sizes))
        self.register_buffer("column", column, persistent=False)
        bound = 1 / math.sqrt(dim)
        weight = torch.empty(self.num_ids, dim).uniform_(-bound, bound)
        starts = torch.tensor([0, *sizes[:-1]]).cumsum(0)
        weight[starts] = weight[starts + 1] = 0.0
        self.embedding = nn.Embedding(self.num_ids, dim, _weight=weight)
        self.bias = nn.Parameter(torch.empty(self.length, dim).uniform_(-bound, bound))

    def forward(
        self, values: Int[Tensor, "b m"], mask: Bool[Tensor, "b m"] | None = None
    ) -> Segment:
        if values.dim() != 2 or values.shape[1] != self.length or values.is_floating_point():
            raise ValueError(
                f"categories have shape {tuple(values.shape)} and type {values.dtype}; expected "
                f"integer ids (batch, {self.length})"
            )
        content = self.embedding(values) + self.bias[self.column[values]]
        return self.segment(content, (self.length,), mask)
