"""Norms that torch has not in the precision that attention wants."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perceiver.ops.precision import widen
from perceiver.shapes import Float


class RMSNorm(nn.Module):
    """x / √(mean x² + eps) · weight, in float32 at least.

    Args:
        dim: channels, each with a weight that starts at 1.
        eps: added to the mean square.
    """

    def __init__(self, dim: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        wide = widen(x)
        unit = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (unit * self.weight.to(unit.dtype)).to(x.dtype)
