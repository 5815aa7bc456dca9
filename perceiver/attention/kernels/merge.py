"""Merging partial softmaxes: over chunks of keys, segments, lengths or shards."""

from __future__ import annotations

import torch
from torch import Tensor

from perceiver.shapes import Float


def merge(
    first: tuple[Float[Tensor, "*rows e"], Float[Tensor, "*rows"]],
    second: tuple[Float[Tensor, "*rows e"], Float[Tensor, "*rows"]],
) -> tuple[Float[Tensor, "*rows e"], Float[Tensor, "*rows"]]:
    """Softmax attention over two sets of keys from that over each.

    lse = log(exp lse₁ + exp lse₂) and out = Σ out_i exp(lse_i − lse). A row that keeps nothing has
    lse −∞ and out 0; the gradients of such rows are zero.

    Args:
        first: (out, lse): what is read over some keys, and the log-sum-exp of their scores.
        second: likewise over other keys.
    """
    (first_out, first_lse), (second_out, second_lse) = first, second
    peak = torch.maximum(first_lse, second_lse).detach()
    peak = peak.masked_fill(peak == float("-inf"), 0.0)
    first_mass, second_mass = (first_lse - peak).exp(), (second_lse - peak).exp()
    total = first_mass + second_mass
    empty = total == 0
    total = total.masked_fill(empty, 1.0)
    lse = (peak + total.log()).masked_fill(empty, float("-inf"))
    out = (
        first_out * (first_mass / total)[..., None] + second_out * (second_mass / total)[..., None]
    )
    return out, lse


def with_sink(
    out: Float[Tensor, "b h q e"], lse: Float[Tensor, "b h q"], sink: float | Tensor
) -> Float[Tensor, "b h q e"]:
    """What is read if a sink takes its share of the weights: out · σ(lse − sink).

    Args:
        out: read without a sink.
        lse: log-sum-exp of the scores.
        sink: broadcasts to (b, h, q, 1).
    """
    return out * torch.sigmoid(lse[..., None] - sink).to(out.dtype)
