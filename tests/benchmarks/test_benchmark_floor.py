"""What is recorded of a step, and that it can be run again alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from benchmarks.floor import alone, recorded
from perceiver.attention.kernels.blocked import blocked


def calls(step):
    return {call.function._schema.name: count for call, count in recorded(step).items()}


def test_products_and_kernels_are_recorded_with_their_number_and_nothing_else():
    x, w = torch.randn(3, 5), torch.randn(7, 5, requires_grad=True)

    def step():
        for _ in range(2):
            F.linear(x, w).relu().sum().backward()

    found = recorded(step)
    assert sorted(found.values()) == [2, 2]  # forward, and the gradient of the weights
    assert {call.function._schema.name for call in found} == {"aten::mm"}


def test_kernels_of_torch_and_of_this_project_are_recorded_whole():
    q, k, v = (torch.randn(1, 2, n, 4, requires_grad=True) for n in (3, 5, 5))
    fused = calls(lambda: F.scaled_dot_product_attention(q, k, v).sum().backward())
    assert len(fused) == 2
    ours = calls(lambda: blocked(q, k, v, keep=None, scale=1.0).sum().backward())
    assert ours.keys() == {"perceiver::blocked", "perceiver::blocked_backward"}


def test_layouts_are_kept_and_times_grow_with_the_number_of_calls():
    x = torch.randn(17, 64, 31).mT
    found = recorded(lambda: torch.bmm(x, x.mT))
    (call,) = found
    (first, _), _ = call._operands()
    assert (first.shape, first.stride()) == (x.shape, x.stride())
    once = alone(found, least=0.0)
    assert once > 0
    found[call] = 1000
    assert alone(found, least=0.0) > 10 * once
