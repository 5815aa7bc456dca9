"""What is not kept is computed again, and changes nothing."""

from __future__ import annotations

import weakref
from functools import partial

import pytest
import torch
from torch import nn

from perceiver.attention import Attention
from perceiver.models import AttentionBlock
from perceiver.ops import recompute as module
from perceiver.ops.recompute import is_worthwhile, recomputable, recompute


def gradients(block, *inputs):
    inputs = [x.clone().requires_grad_() for x in inputs]
    block.zero_grad()
    block(*inputs).square().sum().backward()
    return [x.grad for x in inputs] + [p.grad.clone() for p in block.parameters()]


@pytest.mark.parametrize("context_dim", [None, 5])
@pytest.mark.parametrize("kernel", ["dense", "sdpa", "folded"])
def test_gradients_are_those_of_keeping_everything(context_dim, kernel, monkeypatch):
    torch.manual_seed(0)
    attention = partial(Attention, num_heads=2, qk_dim=6, kernel=kernel)
    block = AttentionBlock(6, context_dim, attention=attention, widening=3).double()
    inputs = [torch.randn(2, 7, 6).double()]
    inputs += [torch.randn(2, 11, context_dim).double()] if context_dim else []
    expected = gradients(block, *inputs)
    monkeypatch.setattr(module, "WORTHWHILE", 0)
    for ours, theirs in zip(gradients(block, *inputs), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("recomputes", [True, False])
def test_a_norm_lives_no_longer_than_its_block(recomputes):
    linear, x = nn.Linear(5, 3), torch.randn(2, 5, requires_grad=True)
    born = []

    def norm(values):
        result = values.sin()
        born.append(weakref.ref(result))
        return result

    with recompute() if recomputes else torch.enable_grad():
        out = linear(recomputable(norm, x))
    assert (born[0]() is None) is recomputes
    out.sum().backward()
    assert len(born) == 1 + recomputes
    torch.testing.assert_close(x.grad, linear.weight.sum(0) * x.cos())


def test_what_several_operations_want_is_computed_again_once_a_pass():
    linears, x = [nn.Linear(5, 3) for _ in range(3)], torch.randn(2, 5, requires_grad=True)
    calls = []

    def norm(values):
        calls.append(1)
        return values.sin()

    with recompute():
        normed = recomputable(norm, x)
        out = sum(linear(normed) for linear in linears)
    for _ in range(2):
        x.grad = None
        out.sum().backward(retain_graph=True)
        expected = sum(linear.weight.sum(0) for linear in linears) * x.cos()
        torch.testing.assert_close(x.grad, expected)
    assert len(calls) == 1 + 2


@pytest.mark.parametrize("numel", [module.WORTHWHILE, module.WORTHWHILE + 1])
def test_only_large_tensors_in_training_are_computed_again(numel):
    large = numel > module.WORTHWHILE
    assert is_worthwhile(torch.empty(numel)) is large
    with torch.no_grad():
        assert not is_worthwhile(torch.empty(numel))


def test_half_precision_is_computed_again_in_half_precision():
    linear, x = nn.Linear(5, 3), torch.randn(2, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), recompute():
        out = linear(recomputable(nn.functional.gelu, linear.weight.new_ones(2, 5).bfloat16() * x))
    out.float().sum().backward()
    assert x.grad.isfinite().all()


def test_both_norms_and_the_activation_of_a_large_block_are_computed_again(monkeypatch):
    again = []
    read = module._Result.read
    monkeypatch.setattr(
        module._Result, "read", lambda self, *a: again.append(self) or read(self, *a)
    )
    block = AttentionBlock(64, attention=partial(Attention, num_heads=2), widening=2)
    block(torch.randn(33, 256, 64)).sum().backward()
    assert len({id(result) for result in again}) == 3
