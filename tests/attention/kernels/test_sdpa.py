"""What torch's fused kernels are given."""

from __future__ import annotations

import pytest
import torch

from perceiver.attention import Attention
from perceiver.attention.kernels.sdpa import fused_width


@pytest.mark.parametrize(
    ("widths", "device", "width"),
    [
        ((33, 20), "cuda", 40),
        ((64, 64), "cuda", 64),
        ((261, 20), "cuda", 264),
        ((33, 20), "cpu", 33),
    ],
)
def test_heads_are_padded_to_what_fused_kernels_take(widths, device, width):
    assert fused_width(*widths, device) == width


def test_heads_of_unequal_widths_reach_the_fused_kernel_of_a_cpu():
    attention = Attention(12, 10, num_heads=2, qk_dim=12, v_dim=8, kernel="sdpa")
    with torch.profiler.profile() as run:
        attention(torch.randn(2, 5, 12), torch.randn(2, 7, 10))
    names = [event.key for event in run.key_averages()]
    assert any("flash_attention_for_cpu" in name for name in names)
