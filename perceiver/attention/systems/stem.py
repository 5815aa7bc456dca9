"""The attention stem of stand-alone self-attention: values that know their place in the window."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceiver.ops.checks import check_shape, check_sizes
from perceiver.ops.init import lecun_linear
from perceiver.shapes import Float


class AttentionStem(nn.Module):
    """y_ij = Σ_ab softmax_ab(q_ij·k_ab) ṽ_ab, ṽ_ab = (Σ_m p(a, b, m) W^m) x_ab.

    p(a, b, m) = softmax_m((row_a + column_b)·ν_m), with (a, b) the place in the neighbourhood; so
    values are mixed from several matrices according to where in the window they stand, as in a
    convolution (Ramachandran et al. 2019, 3.3). What lies past the edge is left out.

    Args:
        in_dim: channels of the picture.
        out_dim: channels of the result.
        num_heads: heads; must divide `out_dim`.
        size: k of the k × k neighbourhood; odd.
        num_mixtures: matrices W^m.
        embedding_dim: width of row_a, column_b and ν_m.
    """

    def __init__(
        self,
        *,
        in_dim: int,
        out_dim: int,
        num_heads: int = 1,
        size: int = 5,
        num_mixtures: int = 4,
        embedding_dim: int = 16,
    ) -> None:
        super().__init__()
        check_sizes(num_heads=num_heads, num_mixtures=num_mixtures)
        if out_dim % num_heads or size % 2 == 0:
            raise ValueError(
                f"num_heads={num_heads} must divide out_dim={out_dim}, and size={size} be odd"
            )
        self.size, self.num_heads = size, num_heads
        self.to_query = lecun_linear(in_dim, out_dim, bias=False)
        self.to_key = lecun_linear(in_dim, out_dim, bias=False)
        self.to_values = nn.ModuleList(
            lecun_linear(in_dim, out_dim, bias=False) for _ in range(num_mixtures)
        )
        self.rows = nn.Parameter(torch.randn(size, embedding_dim))
        self.columns = nn.Parameter(torch.randn(size, embedding_dim))
        self.mixture = nn.Parameter(torch.randn(num_mixtures, embedding_dim) * embedding_dim**-0.5)

    def mixing(self) -> Float[Tensor, "size size m"]:
        """p(a, b, m)."""
        place = self.rows[:, None] + self.columns
        return (place @ self.mixture.t()).softmax(-1)

    def _windows(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w c size2"]:
        reach = self.size // 2
        padded = F.pad(x, (0, 0, reach, reach, reach, reach))
        windows = padded.unfold(1, self.size, 1).unfold(2, self.size, 1)
        return windows.flatten(-2)

    def forward(self, image: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w c2"]:
        """The picture (batch, height, width, channels) after one layer of attention."""
        in_dim = self.to_query.in_features
        check_shape("image", image, "batch", "height", "width", in_dim)
        heads = (self.num_heads, -1)
        query = self.to_query(image).unflatten(-1, heads)
        key = self._windows(self.to_key(image)).unflatten(-2, heads)
        scores = torch.einsum("byxhd,byxhdn->byxhn", query, key)
        inside = self._windows(image.new_ones(*image.shape[:3], 1))[..., 0, :] > 0
        weights = scores.masked_fill(~inside[..., None, :], float("-inf")).softmax(-1)
        mixing = self.mixing().flatten(0, 1)
        read = image.new_zeros(())
        for m, to_value in enumerate(self.to_values):
            value = self._windows(to_value(image)).unflatten(-2, heads)
            read = read + torch.einsum("byxhn,n,byxhdn->byxhd", weights, mixing[:, m], value)
        return read.flatten(-2)
