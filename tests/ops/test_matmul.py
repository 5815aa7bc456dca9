"""oneDNN's products against MKL's."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from perceiver.ops import matmul as module
from perceiver.ops.init import Linear
from perceiver.ops.matmul import linear, products

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
    """A list that grows with every product of oneDNN's: of a layer, or of any matrices."""
    calls, by_onednn, allowed = [], module._onednn, module.rounding_allowed
    monkeypatch.setattr(module, "_onednn", lambda *a: calls.append("layer") or by_onednn(*a))
    monkeypatch.setattr(module, "rounding_allowed", lambda: calls.append("matrices") or allowed())
    return calls


needs_exactness = pytest.mark.skipif(
    not module.NEVER_ROUNDS, reason="this processor rounds where it may"
)
OPTION = torch.backends.mkldnn.matmul


@pytest.fixture
def option():
    """Of what may be rounded; as it was, afterwards."""
    yield OPTION
    for backend in (torch.backends, torch.backends.mkldnn, OPTION):
        backend.fp32_precision = "none"


@needs_onednn
@pytest.mark.parametrize("chosen", ["none", "ieee", "bf16"])
def test_what_may_be_rounded_is_the_users_choice_again(chosen, option):
    option.fp32_precision = chosen
    with module.rounding_allowed():
        assert option.fp32_precision == "bf16"
    assert option.fp32_precision == chosen
    with pytest.raises(RuntimeError), module.rounding_allowed():
        torch.eye(2) @ torch.eye(3)
    assert option.fp32_precision == chosen


@needs_onednn
@pytest.mark.parametrize("chosen", ["highest", "high", "medium"])
def test_a_choice_by_torchs_older_name_is_kept_as_well(chosen, option):
    torch.set_float32_matmul_precision(chosen)
    expected = option.fp32_precision
    with module.rounding_allowed():
        assert option.fp32_precision == "bf16"
    assert torch.get_float32_matmul_precision() == chosen
    assert option.fp32_precision == expected
    torch.set_float32_matmul_precision("highest")


@needs_onednn
def test_what_the_user_chose_for_all_goes_on_to_be_followed(option):
    torch.backends.fp32_precision = "ieee"
    followed = option.fp32_precision
    with module.rounding_allowed():
        pass
    assert option.fp32_precision == followed
    torch.backends.fp32_precision = "none"
    assert option.fp32_precision == "none"


@needs_onednn
def test_the_last_of_several_threads_takes_it_back(option):
    inside, leave = threading.Event(), threading.Event()

    def stay():
        with module.rounding_allowed():
            inside.set()
            leave.wait(60)

    other = threading.Thread(target=stay)
    with module.rounding_allowed():
        other.start()
        assert inside.wait(60)
    assert option.fp32_precision == "bf16"
    leave.set()
    other.join(60)
    assert option.fp32_precision == "none"


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
        assert called.count("layer") > 8  # forward, backward, and through the backward pass
        assert called.count("matrices") > 2 or not module.NEVER_ROUNDS
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
    assert called == ["matrices"] * (3 if module.NEVER_ROUNDS else 0)
    double = products(left.double(), right.double(), scale=scale)
    torch.testing.assert_close(double.float(), expected)
    assert len(called) <= 3


@needs_onednn
def test_matrices_are_left_to_mkl_where_onednn_would_round_them(called, monkeypatch):
    monkeypatch.setattr(module, "NEVER_ROUNDS", False)
    left, right = torch.randn(2, 64, 64), torch.randn(2, 64, 64)
    torch.testing.assert_close(products(left, right), left @ right)
    assert not called


@needs_exactness
@pytest.mark.parametrize("batch", [1, 3])
def test_nothing_is_rounded_where_it_may_be(batch):
    left, right = torch.randn(batch, 96, 64), torch.randn(batch, 64, 80)
    exact = left.double() @ right.double()
    assert (products(left, right) - exact).abs().max() < 1e-4  # in bfloat16 0.1


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
    matrices = int(module.NEVER_ROUNDS)  # of the weight's gradient
    assert calls["mkldnn::_linear_pointwise"] == 3 - matrices
    assert calls.get("aten::mm", 0) == matrices


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
