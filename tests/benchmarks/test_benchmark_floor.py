"""What is recorded of a step, and that it can be run again alone."""

from __future__ import annotations

from collections import Counter

import torch
import torch.nn.functional as F

from benchmarks.floor import alone, recorded
from perceiver.attention.kernels.blocked import blocked


def calls(step):
    found = Counter()
    for call, count in recorded(step).items():
        found[call.function._schema.name.removeprefix("aten::")] += count
    return found


def test_every_operator_is_recorded_with_its_number():
    x, w = torch.randn(3, 5), torch.randn(7, 5, requires_grad=True)

    def step():
        for _ in range(2):
            F.linear(x, w).relu().sum().backward()

    found = calls(step)
    assert found["mm"] == 4  # forward, and the gradient of the weights
    assert found["relu"] == found["threshold_backward"] == found["sum"] == 2


def test_views_and_empty_memory_are_no_work_and_what_writes_is():
    x = torch.randn(3, 5)
    assert not calls(lambda: torch.empty_like(x.mT[1:].unsqueeze(0)).expand(2, -1, -1))
    written = calls(lambda: torch.add(x.clone().mul_(2), 1, out=torch.empty(3, 5)))
    assert written == {"clone": 1, "mul_": 1, "add": 1}


def test_products_are_a_part_of_the_operators():
    x, w = torch.randn(67, 71), torch.randn(71, 73)
    found = alone(recorded(lambda: (x @ w).exp_()), least=0.0)
    product = alone(recorded(lambda: x @ w), least=0.0)
    assert 0 < found["products"] < found["operators"]
    assert product["products"] == product["operators"]
    assert found["left_out"] == 0


def test_what_cannot_run_alone_is_counted():
    found = recorded(lambda: [torch.ones(67).multinomial(2) for _ in range(3)])
    kept = alone(found, least=0.0)  # operands of its like are no probabilities, but below zero
    assert kept["left_out"] == found.total() - 3 == 3
    assert kept["operators"] > 0


def test_indices_stay_within_what_they_index():
    rows = torch.tensor([0, 4, 2])
    found = recorded(lambda: torch.ones(5, 7)[rows])
    (call,) = (c for c in found if c.function._schema.name == "aten::index")
    drawn = torch.cat([call._operands()[0][1][0] for _ in range(50)])
    assert set(drawn.tolist()) == set(range(5))
    assert alone(found, least=0.0)["left_out"] == 0


def test_kernels_of_torch_and_of_this_project_are_recorded_whole():
    q, k, v = (torch.randn(1, 2, n, 4, requires_grad=True) for n in (3, 5, 5))
    fused = calls(lambda: F.scaled_dot_product_attention(q, k, v).sum().backward())
    assert len([name for name in fused if name.startswith("_scaled_dot_product_")]) == 2
    ours = calls(lambda: blocked(q, k, v, keep=None, scale=1.0).sum().backward())
    assert {"perceiver::blocked", "perceiver::blocked_backward"} <= ours.keys()
    assert not {name for name in ours if "mm" in name}


def test_layouts_are_kept_and_times_grow_with_the_number_of_calls():
    x = torch.randn(17, 64, 31).mT
    found = recorded(lambda: torch.bmm(x, x.mT))
    (call,) = found
    (first, _), _ = call._operands()
    assert (first.shape, first.stride()) == (x.shape, x.stride())
    once = alone(found, least=0.0)["products"]
    assert once > 0
    found[call] = 1000
    assert alone(found, least=0.0)["products"] > 10 * once
