"""Counting multiply-adds: what it chooses for models that people run, and how fast that is."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.cost import CASES, STEPS, chosen
from benchmarks.machine import RESULTS
from perceiver.attention import Attention, Context
from perceiver.attention.kernels import KERNELS, select_kernel
from perceiver.attention.kernels.cost import ROOMY
from perceiver.ops import matmul as products
from perceiver.types import Segment

RECORDED = {
    path.parent.name: json.loads(path.read_text(encoding="utf-8"))["cases"]
    for path in RESULTS.glob("*/cost.json")
}
OFF = 1.2  # times the fastest, of attentions that take a few milliseconds; of others 1.1
SMALL = ("narrow heads, latents", "a few tokens")


@pytest.mark.parametrize(
    ("machine", "name", "step"),
    [
        (machine, name, step)
        for machine, cases in RECORDED.items()
        for name, steps in cases.items()
        for step in steps
    ],
)
def test_the_choice_is_nearly_the_fastest_that_was_measured(machine, name, step, monkeypatch):
    monkeypatch.setattr(products, "MKL_IS_SLOW", machine.startswith("amd-"))
    monkeypatch.setattr(products, "HAS_TILES", "-amx-" in machine)
    monkeypatch.setattr(products, "NEVER_ROUNDS", "-amx-" not in machine)
    seconds = RECORDED[machine][name][step]["seconds"]
    assert seconds.keys() == set(CASES[name].forms)
    taken = seconds[chosen(name, step)] / min(seconds.values())
    assert taken <= (OFF if name in SMALL else 1.1)


def test_all_cases_are_recorded_in_some_precision_on_each_machine_and_in_both_on_one():
    steps = [
        {(name, step) for name in cases for step in cases[name]} for cases in RECORDED.values()
    ]
    full = {(name, step) for name in CASES for step in STEPS if "bf16" not in step}
    assert all(found >= full for found in steps)
    assert {(name, step) for name in CASES for step in STEPS} in steps


@pytest.mark.parametrize(("tokens", "kernel"), [(1 << 17, "folded"), (1 << 20, "separable")])
def test_a_kernel_that_would_fill_the_memory_is_passed_over(tokens, kernel):
    """Of two that cost the same the first is taken, if it does not join 3 × 400 MiB of tokens."""
    content = torch.zeros(1, 1, 1).expand(1, tokens, 100)  # takes no memory itself
    attention = Attention(64, 100, qk_dim=64)
    problem = attention.problem(torch.randn(1, 2, 64), Context([Segment(content)]))
    folded, separable = KERNELS["folded"], KERNELS["separable"]
    assert folded.cost(problem) == separable.cost(problem)
    assert (folded.holds(problem) > ROOMY) is (kernel == "separable")
    assert select_kernel("auto", problem).name == kernel


def test_positions_on_one_axis_stay_apart():
    """Folded and separable multiply as much there; joining would write the tokens besides."""
    samples, code = torch.zeros(1, 48_000, 1), torch.zeros(48_000, 129)
    attention = Attention(512, 130, qk_dim=130)
    problem = attention.problem(torch.randn(1, 256, 512), Context([Segment(samples, (code,))]))
    assert select_kernel("auto", problem).name == "separable"


def test_exported_programs_use_no_operator_of_our_own():
    block, latents, inputs = CASES["small image"].build()
    tokens = inputs.tokens

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.block = block

        def forward(self, latents, tokens):
            return self.block(latents, tokens)

    program = torch.export.export(Block(), (latents.expand(16, -1, -1), tokens))
    assert "perceiver" not in str(program.graph)
