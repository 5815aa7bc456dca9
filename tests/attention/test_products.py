"""oneDNN's products against MKL's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from perceiver.attention import products as module
from perceiver.attention.init import Linear
from perceiver.attention.products import linear, product, products

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN"
)


@pytest.fixture(autouse=True)
def mkl_is_slow(monkeypatch):
    """And no product too small."""
    monkeypatch.setattr(module, "MKL_IS_SLOW", True)
    monkeypatch.setattr(module, "LEAST_WORK", 0)
    torch.manual_seed(0)


@pytest.fixture
def called(monkeypatch):
    """A list that grows with every product of oneDNN's."""
    calls, by_onednn = [], module._onednn
    monkeypatch.setattr(module, "_onednn", lambda *a: calls.append(1) or by_onednn(*a))
    return calls


def weights(layout: str, n: int, k: int) -> torch.Tensor:
    made = {
        "rows": lambda: torch.randn(n, k),
        "columns": lambda: torch.randn(k, n).mT,
        "rows apart": lambda: torch.randn(n, 2 * k)[:, :k],
        "columns apart": lambda: torch.randn(k, 2 * n)[:, :n].mT,
    }
    return made[layout]().requires_grad_()


@needs_onednn
@pytest.mark.parametrize("layout", ["rows", "columns", "rows apart", "columns apart"])
@pytest.mark.parametrize("sizes", [(9, 5), (5, 9)])  # the gradient of which operand is narrow
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_linear_layer_and_its_gradients_of_first_and_second_order(
    layout, sizes, has_bias, called
):
    n, k = sizes
    x = torch.randn(2, 7, 2 * k)[..., :k].requires_grad_()
    given = [x, weights(layout, n, k), *[torch.randn(n, requires_grad=True)] * has_bias]
    factor = torch.randn(2, 7, n)
    results = []
    for function in (linear, F.linear):
        out = function(*given, *[None] * (not has_bias))
        first = torch.autograd.grad((out.sin() * factor).sum(), given, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), given)
        results.append([out, *first, *second])
        assert len(called) > 8  # forward, backward, and through the backward pass
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@needs_onednn
def test_the_operator_keeps_the_rules_of_its_kind():
    arguments = torch.randn(3, 5, 8), weights("rows", 6, 8), torch.randn(6)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.perceiver.linear.default, arguments, test_utils=checks)


@needs_onednn
@pytest.mark.parametrize(("scale", "widths"), [(1.0, (6, 7)), (0.3, (6, 7)), (0.3, (7, 6))])
@pytest.mark.parametrize("batch", [1, 2])
def test_products_of_matrices(batch, scale, widths, called):
    m, n = widths
    left, right = torch.randn(batch, 5, m).mT, torch.randn(batch, 5, n)
    expected = scale * torch.einsum("bkm,bkn->bmn", left.mT, right)
    torch.testing.assert_close(products(left, right, scale=scale), expected)
    room = torch.zeros_like(expected)
    torch.testing.assert_close(products(left, right, scale=scale, out=room), expected)
    room = torch.ones_like(expected)
    added = products(left, right, scale=scale, out=room, is_added=True)
    torch.testing.assert_close(added, 1 + expected)
    assert added.data_ptr() == room.data_ptr()
    assert len(called) == (3 if batch == 1 else 0)  # several matrices are one call of MKL's
    torch.testing.assert_close(product(left[0], right[0]), left[0] @ right[0])


@needs_onednn
def test_it_counts_as_the_products_that_it_is():
    layer, x = Linear(8, 6), torch.randn(3, 5, 8, requires_grad=True)
    counts = []
    for function in (layer, super(Linear, layer).forward):
        with FlopCounterMode(display=False) as counter:
            function(x).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts == [3 * 2 * 15 * 8 * 6] * 2


def test_what_is_not_plain_full_precision_on_a_cpu_goes_torchs_way(called, monkeypatch):
    layer, x = Linear(8, 8), torch.randn(4, 8)
    layer.double()(x.double())
    layer.bfloat16()(x.bfloat16())
    layer.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert layer.to("meta")(x.to("meta")).is_meta
    assert not called
    layer = Linear(8, 8)
    with torch.backends.mkldnn.flags(enabled=False):
        layer(x)
    layer(x[:0])
    layer(x[:1])  # one row is as slow as memory
    monkeypatch.setattr(module, "MKL_IS_SLOW", False)
    layer(x)
    assert not called


@pytest.mark.parametrize("x_shape", [(4, 7), (7,)])
def test_mistakes_are_torchs_to_tell(x_shape, called):
    layer = Linear(8, 8)
    with pytest.raises(RuntimeError, match=r"shapes? (cannot|.*invalid)|size mismatch|mat"):
        module._linear(torch.randn(x_shape), layer.weight, layer.bias)
    with pytest.raises(RuntimeError, match=r"dtype|same"):
        linear(torch.randn(4, 8), layer.weight, layer.bias.double())
    assert not called


@needs_onednn
@pytest.mark.parametrize("learns", ["weight", "x"])
def test_what_no_gradient_needs_is_not_kept(learns):
    x, weight = torch.randn(4, 8), torch.randn(8, 8)
    kept, layout = [], {"weight": x, "x": weight}
    {"weight": weight, "x": x}[learns].requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        linear(x, weight, None)
    assert [t.data_ptr() for t in kept] == [layout[learns].data_ptr()]


def test_transforms_and_exports_see_a_plain_linear_layer(called):
    layer, x = Linear(8, 8), torch.randn(4, 8)
    parameters = dict(layer.named_parameters())

    def loss(parameters, row):
        return torch.func.functional_call(layer, parameters, row[None]).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    whole = torch.autograd.grad(layer(x).square().sum(), layer.weight)[0]
    assert called  # by the plain call alone
    called.clear()
    torch.testing.assert_close(each["weight"].sum(0), whole)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        tangent = torch.autograd.forward_ad.unpack_dual(layer(dual)).tangent
    torch.testing.assert_close(tangent, torch.ones_like(x) @ layer.weight.mT)
    program = torch.export.export(nn.Sequential(layer), (x,))
    assert "perceiver" not in str(program.graph)
    assert "aten::linear" in str(torch.jit.trace(layer, x, check_trace=False).graph)
    assert not called
    rows = torch.eye(4)[..., None].expand(4, 4, 8)  # gradients of each row of the result
    loss_by_row = {"grad_outputs": rows, "is_grads_batched": True}
    by_row = torch.autograd.grad(layer(x), layer.weight, **loss_by_row)[0]
    torch.testing.assert_close(by_row[:, 0], x)


@pytest.mark.slow
@needs_onednn
@pytest.mark.parametrize("is_dynamic", [False, True])
def test_a_compiled_layer_has_it_for_the_result_and_both_gradients(is_dynamic):
    layer, x = Linear(16, 16), torch.randn(8, 16, requires_grad=True)
    expected = torch.autograd.grad(layer(x).square().sum(), layer.weight)[0]
    compiled = torch.compile(layer, dynamic=is_dynamic)
    with torch.profiler.profile() as profiler:
        ours = torch.autograd.grad(compiled(x).square().sum(), layer.weight)[0]
    torch.testing.assert_close(ours, expected)
    calls = {event.key: event.count for event in profiler.key_averages()}
    assert calls["mkldnn::_linear_pointwise"] == 3
    assert "aten::addmm" not in calls


@pytest.mark.parametrize(
    ("told", "capability", "is_slow"),
    [
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t: 2", "AVX512", True),
        ("AMD64 Family 26 Model 68 Stepping 0, AuthenticAMD", "AVX512", True),
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t: 2", "AVX2", False),
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t: 17", "AVX512", False),  # Zen 4
        ("vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t: 143", "AVX512", False),
        ("", "AVX512", False),
    ],
)
def test_mkl_is_slow_on_processors_of_others_with_wide_units(
    told, capability, is_slow, monkeypatch
):
    for library in (torch.backends.mkl, torch.backends.mkldnn):
        monkeypatch.setattr(library, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(module, "_processor", lambda: told)
    assert module._mkl_is_slow() is is_slow
