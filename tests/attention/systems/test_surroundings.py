"""Attention among what others do to a model: other weights, hooks, checkpoints, torch.func."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from perceiver.attention import Attention
from perceiver.attention.context import Context
from perceiver.models.blocks import AttentionBlock
from perceiver.ops import recompute as ops
from perceiver.ops.matmul import linear
from perceiver.types import Segment


def block(**options):
    torch.manual_seed(0)
    return AttentionBlock(64, attention=partial(Attention, num_heads=2, **options))


def large():
    """Latents of which norms are computed again in the backward pass."""
    return torch.randn(33, 256, 64)


def gradients(module):
    return {name: parameter.grad for name, parameter in module.named_parameters()}


def test_what_is_computed_again_has_the_weights_that_were_given_for_the_forward_pass():
    module, x = block(), large()
    assert ops.is_worthwhile(x)
    tripled = {name: (3 * p).detach() for name, p in module.named_parameters() if "norm" in name}
    torch.func.functional_call(module, tripled, (x,)).square().mean().backward()
    found = gradients(module)
    other = block()
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            parameter.copy_(tripled.get(name, parameter))
    other(x).square().mean().backward()
    for name, gradient in gradients(other).items():
        if name not in tripled:
            torch.testing.assert_close(found[name], gradient)


def test_a_checkpoint_around_a_large_block_computes_it_again():
    module, calls = block(), []
    module.norm.register_forward_hook(lambda *_: calls.append(True))
    x = large().requires_grad_()
    checkpoint(module, x, use_reentrant=False).square().mean().backward()
    assert len(calls) == 2
    expected, again = block(), x.detach().clone().requires_grad_()
    expected(again).square().mean().backward()
    torch.testing.assert_close(x.grad, again.grad)


@pytest.mark.parametrize("num", [1, 33])
def test_changing_a_result_in_place_is_refused_whatever_its_size(num):
    module = block()
    x = torch.randn(num, 256, 64, requires_grad=True)
    y = module(x)
    y += 1.0  # of a sum, which no gradient needs
    y.sum().backward()
    h = x * 1.0
    y = module(h)
    h += y
    with pytest.raises(RuntimeError, match=r"in place|inplace"):
        h.sum().backward()


def test_another_thread_has_results_of_its_own():
    from threading import Thread

    with ops.recompute():
        held = []
        thread = Thread(target=lambda: held.append(ops._state.results))
        thread.start()
        thread.join()
        assert held == [None]
        assert ops._state.results == []


@pytest.mark.parametrize("kernel", ["dense", "folded", "separable"])
def test_checkpoints_of_blocks_that_share_a_context(kernel):
    def run(wrap):
        torch.manual_seed(0)
        module = AttentionBlock(32, 8, attention=partial(Attention, kernel=kernel))
        codes = torch.randn(12, 3)
        content = torch.randn(2, 12, 5)
        context = Context([Segment(content, (codes,))], module.norm_context)
        z = torch.randn(2, 4, 32)
        for _ in range(2):
            z = wrap(module, z, context)
        z.square().sum().backward()
        return gradients(module)

    found = run(lambda module, z, context: checkpoint(module, z, context, use_reentrant=False))
    for name, gradient in run(lambda module, z, context: module(z, context)).items():
        torch.testing.assert_close(found[name], gradient)


@pytest.mark.parametrize("kernel", ["dense", "folded", "separable"])
def test_a_context_that_was_read_without_gradients_still_has_them(kernel):
    module = AttentionBlock(32, 8, attention=partial(Attention, kernel=kernel))
    context = Context([Segment(torch.randn(2, 12, 8))], module.norm_context)
    z = torch.randn(2, 4, 32)
    with torch.no_grad():
        module(z, context)
    with torch.autocast("cpu", torch.bfloat16):
        module(z, context)
    module(z, context).sum().backward()
    assert all(gradient is not None for gradient in gradients(module).values())


class Adapter(nn.Module):
    """A layer beside a layer, as libraries of adapters put them."""

    def __init__(self, base):
        super().__init__()
        self.base, self.more = base, nn.Linear(base.in_features, base.out_features)

    weight = property(lambda self: self.base.weight)
    bias = property(lambda self: self.base.bias)
    in_features = property(lambda self: self.base.in_features)
    out_features = property(lambda self: self.base.out_features)

    def forward(self, x):
        return self.base(x) + self.more(x)


def changed(change):
    torch.manual_seed(0)
    attention = Attention(64, 16, qk_dim=256)
    change(attention)
    query, context = torch.randn(1, 4, 64), torch.randn(2, 4096, 16)
    return [run(attention, kernel, query, context) for kernel in ("auto", "dense")]


def run(attention, kernel, query, context):
    attention.kernel = kernel
    return attention(query, context).out


def adapt(attention):
    attention.heads.to_key = Adapter(attention.heads.to_key)


def hook(attention):
    attention.heads.to_value.register_forward_hook(lambda layer, given, out: 2 * out)


def override(attention):
    attention.heads.to_value.forward = lambda x: torch.ones(*x.shape[:-1], 256)


@pytest.mark.parametrize("change", [adapt, hook, override])
def test_layers_that_do_more_than_multiply_are_called(change):
    found, expected = changed(change)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_forward_mode_and_functional_gradients_of_what_auto_takes():
    attention = Attention(64, 16, qk_dim=256)
    query, context = torch.randn(1, 4, 64), torch.randn(2, 4096, 16)

    def out(query):
        return attention(query, context).out

    def exact(query):
        return run(attention, "dense", query, context)

    tangents = (torch.ones_like(query),)
    found = torch.func.jvp(out, (query,), tangents)[1]
    expected = torch.func.jvp(exact, (query,), tangents)[1]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    attention.kernel = "folded"
    with pytest.raises(ValueError, match=r"no rules for torch\.func"):
        torch.func.jvp(out, (query,), tangents)


def test_a_bias_of_any_stride_is_added_as_it_is():
    x, weight = torch.randn(256, 256), torch.randn(256, 256)
    for bias in (torch.randn(512)[::2], torch.randn(1).expand(256)):
        expected = nn.functional.linear(x, weight, bias.contiguous())
        torch.testing.assert_close(linear(x, weight, bias), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kernel", ["dense", "chunked"])
def test_no_gradient_is_nan_where_biases_or_masks_leave_nothing(kernel):
    attention = Attention(8, kernel=kernel)
    x = torch.randn(1, 6, 8, requires_grad=True)
    bias = torch.zeros(6, 6)
    bias[2] = float("-inf")
    mask = torch.ones(1, 6, 6, dtype=torch.bool)
    mask[0, 2] = False
    attention(x, mask=mask, bias=bias).out.sum().backward()
    assert all(gradient.isfinite().all() for gradient in gradients(attention).values())
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("kernel", "normaliser"),
    [
        *(("dense", name) for name in ("softmax", "sparsemax", "entmax", "sigmoid", "argmax")),
        *(("sdpa", "softmax"), ("chunked", "softmax"), ("flex", "softmax")),
    ],
)
def test_a_bias_of_minus_infinity_leaves_out_as_a_mask_does(kernel, normaliser):
    torch.manual_seed(0)
    attention = Attention(8, num_heads=2, kernel=kernel, normaliser=normaliser)
    x, bias = torch.randn(2, 6, 8), torch.randn(6, 6)
    mask = torch.rand(6, 6) < 0.5
    mask[2] = False
    with torch.no_grad():
        wanted = attention(x, mask=mask.expand(2, 6, 6), bias=bias).out
        found = attention(x, bias=bias.masked_fill(~mask, float("-inf"))).out
    torch.testing.assert_close(found, wanted)


def test_a_whole_chunk_left_out_by_a_bias_has_no_gradient():
    size = 1 << 17
    attention = Attention(8, kernel="chunked")
    bias = torch.zeros(size + 10)
    bias[size:] = float("-inf")
    attention(torch.randn(1, 4, 8), torch.randn(1, size + 10, 8), bias=bias).out.sum().backward()
    assert all(gradient.isfinite().all() for gradient in gradients(attention).values())


def test_a_query_whose_features_vanish_sees_something_all_the_same():
    torch.manual_seed(0)
    attention = Attention(4, score="feature_dot", normaliser="sum")
    nn.init.normal_(attention.heads.to_out.bias)
    with torch.no_grad():
        attention.heads.to_query.weight.zero_()
        attention.heads.to_query.bias.fill_(-200.0)
    x, mask = torch.randn(1, 3, 4), torch.tensor([[True, True, False]])
    found = [run(attention, kernel, x, x) for kernel in ("linear", "dense")]
    torch.testing.assert_close(*found)
    attention.kernel = "linear"
    assert (attention(x, mask=mask).out == attention.heads.to_out.bias).all()
