"""Linear layers that read the same input as one product."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from perceiver.ops.init import Linear
from perceiver.ops.matmul import linear
from perceiver.shapes import Float


def fusing_pays(x: Tensor, layers: Sequence[nn.Module]) -> bool:
    """Whether one product is quicker than one a layer, and does the same.

    The weights are joined each time: parameters stay apart, as optimisers with a rate for each
    matrix (LAMB) and public checkpoints have them. That pays where x has at least as many rows as
    they have columns: 3 to 4 % of a small image's step, while with half as many rows it costs 3 %.
    Layers that are more than a plain linear layer (hooks, adapters, parametrisations) are called.
    """
    rows = x.numel() // max(1, x.shape[-1])
    return (
        not torch.compiler.is_exporting()  # sizes are symbols there
        and rows >= x.shape[-1]
        and all(_is_plain(layer) for layer in layers)
    )


def _is_plain(layer: nn.Module) -> bool:
    return type(layer) in (nn.Linear, Linear) and not is_hooked(layer)


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


def fused(x: Float[Tensor, "*b d"], layers: Sequence[nn.Linear]) -> tuple[Tensor, ...]:
    """[layer(x) for layer in layers]; all of them have a bias or none has."""
    device, dtype = x.device.type, x.dtype
    if device != "meta" and torch.is_autocast_enabled(device) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
    weight = torch.cat([layer.weight.to(dtype) for layer in layers])
    biases = [layer.bias.to(dtype) for layer in layers if layer.bias is not None]
    joined = linear(x, weight, torch.cat(biases) if biases else None)
    return joined.split([layer.out_features for layer in layers], -1)
