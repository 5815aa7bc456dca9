"""Which parameters weight decay applies to, and which learn at rates of their own."""

from __future__ import annotations

from collections import defaultdict

from torch import nn
from torch.optim import Optimizer


def parameter_groups(module: nn.Module) -> list[dict[str, object]]:
    """Two groups for an optimiser: decayed weights, and what is never decayed.

    Biases, norms and single learned vectors (all parameters of one dimension or none) are not
    decayed, as in the papers' recipes. The first group takes the optimiser's own weight decay.

    A part that has `rate_scales()`, its parameters' names → shares of the rate, gets two more for
    each share, which say so as `lr_scale`; see `scale_rates`.
    """
    scales = {
        f"{path}.{name}".lstrip("."): scale
        for path, part in module.named_modules()
        if hasattr(part, "rate_scales")
        for name, scale in part.rate_scales().items()
    }
    by_scale = defaultdict[float, list[nn.Parameter]](list)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            by_scale[scales.get(name, 1.0)].append(parameter)
    groups: list[dict[str, object]] = []
    for scale, trained in sorted(by_scale.items(), reverse=True):
        rate: dict[str, object] = {} if scale == 1.0 else {"lr_scale": scale}
        groups.append({"params": [p for p in trained if p.dim() > 1], **rate})
        undecayed = [p for p in trained if p.dim() <= 1]
        groups.append({"params": undecayed, "weight_decay": 0, **rate})
    return [group for group in groups if group["params"]]


def scale_rates(optimizer: Optimizer) -> Optimizer:
    """Let each group learn at its share of the rate, before a schedule takes the rates over."""
    for group in optimizer.param_groups:
        group["lr"] *= group.pop("lr_scale", 1.0)
    return optimizer
