"""Linear layers of attention blocks: how they start, and whether one is its weight alone."""

from __future__ import annotations

import math

from torch import Tensor, nn

from perceiver.ops.matmul import linear
from perceiver.shapes import Float

# Standard deviation of a unit normal cut at ±2: dividing by it restores unit variance.
_TRUNCATED_STD = 0.87962566103423978


class Linear(nn.Linear):
    """A linear layer that multiplies with the library that is quickest on the machine."""

    def forward(self, x: Float[Tensor, "*b k"]) -> Float[Tensor, "*b n"]:
        return linear(x, self.weight, self.bias)


def lecun_linear(in_dim: int, out_dim: int, *, bias: bool = True) -> Linear:
    """A linear layer with weights from a truncated normal of variance 1/fan-in and zero biases.

    The initialisation of the published Perceivers (Jaegle et al. 2021, released code).
    """
    layer = Linear(in_dim, out_dim, bias=bias)
    std = 1 / math.sqrt(in_dim) / _TRUNCATED_STD
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def is_hooked(layer: nn.Module) -> bool:
    """Whether calling the layer does more than its class says."""
    return bool(
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or "forward" in vars(layer)
    )


def is_its_weight(layer: nn.Module) -> bool:
    """Whether the layer is the linear map of its weight and bias, whatever these are made of.

    Parametrisations are, and torchao's layers in eight bits, up to rounding; adapters are not.
    """
    kind = type(layer)
    is_linear = kind.forward in (nn.Linear.forward, Linear.forward)
    return not is_hooked(layer) and (is_linear or kind.__module__.startswith("torchao.float8"))
