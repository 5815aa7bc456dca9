"""One product for queries, keys and values."""

from functools import partial
from unittest.mock import patch

import pytest
import torch
from torch.testing import assert_close

from perceiver.attention import Attention
from perceiver.attention.heads import qkv as heads
from perceiver.ops.joint_projection import fused

OPTIONS = {
    "plain": {},
    "without biases": {"bias": False},
    "values wider": {"v_dim": 12},
    "grouped": {"options": {"qkv": {"num_kv_heads": 1}}},
    "normed": {"options": {"qkv": {"qk_norm": "rms"}}},
    "gated": {"options": {"qkv": {"is_gated": True}}},
    "differential": {"heads": "differential", "v_dim": 12},
}


def products(attention, *inputs, **options):
    """(result, how many layers each product served)."""
    served = []

    def spy(x, layers):
        served.append(len(layers))
        return fused(x, layers)

    with patch.object(heads, "fused", spy):
        return attention(*inputs, **options).out, served


@pytest.mark.parametrize("name", OPTIONS)
def test_it_changes_neither_results_nor_gradients(name):
    torch.manual_seed(0)
    attention = Attention(8, num_heads=2, **OPTIONS[name]).double()
    x = torch.randn(3, 5, 8).double().requires_grad_()
    given = [x, *attention.parameters()]
    together, served = products(attention, x)
    apart, alone = products(attention, x, x.clone())
    assert (served, alone) == ([3], [])
    assert_close(together, apart)
    gradients = partial(torch.autograd.grad, inputs=given, grad_outputs=torch.randn_like(x))
    for one, other in zip(gradients(together), gradients(apart), strict=True):
        assert_close(one, other)


def test_weights_that_outweigh_the_rows_are_not_joined():
    attention = Attention(8, num_heads=2)
    assert products(attention, torch.randn(1, 7, 8))[1] == []
    assert products(attention, torch.randn(1, 8, 8))[1] == [3]


def test_what_is_hung_on_a_layer_is_called():
    attention, seen = Attention(8, num_heads=2), []
    attention.heads.to_key.register_forward_hook(lambda *call: seen.append("hook"))
    assert products(attention, torch.randn(3, 5, 8))[1] == []
    assert seen == ["hook"]
    attention = Attention(8, num_heads=2)
    torch.nn.utils.parametrizations.weight_norm(attention.heads.to_value)
    assert products(attention, torch.randn(3, 5, 8))[1] == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_autocast_decides_its_precision_as_it_does_for_a_linear_layer(dtype):
    layer = torch.nn.Linear(8, 4, dtype=dtype)
    x = torch.randn(3, 5, 8, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16):
        expected = layer(x)
        for found in fused(x, [layer, layer]):
            assert found.dtype == expected.dtype
            assert_close(found, expected)


def test_it_has_shapes_without_memory():
    with torch.device("meta"):
        attention = Attention(32, num_heads=4)
        assert attention(torch.empty(2, 64, 32)).out.shape == (2, 64, 32)
