"""Which parameters weight decay applies to."""

from __future__ import annotations

from torch import nn


def parameter_groups(module: nn.Module) -> list[dict[str, object]]:
    """Two groups for an optimiser: decayed weights, and what is never decayed.

    Biases, norms and single learned vectors (all parameters of one dimension or none) are not
    decayed, as in the papers' recipes. The first group takes the optimiser's own weight decay.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups: list[dict[str, object]] = [
        {"params": [parameter for parameter in trained if parameter.dim() > 1]},
        {"params": [parameter for parameter in trained if parameter.dim() <= 1], "weight_decay": 0},
    ]
    return [group for group in groups if group["params"]]
