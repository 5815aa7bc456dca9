"""Heads against torch, timm, transformers and keras."""

from __future__ import annotations

import os

import pytest
import torch
import torch.nn.functional as F

from perceiver.attention import Attention, DifferentialAttention, MultiHeadAttention
from perceiver.attention.heads.qkv import QKVHeads
from perceiver.ops.norms import RMSNorm


def assert_equal(ours, expected):
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-9)


def test_multi_head_attention_is_torchs():
    ours = MultiHeadAttention(12, 10, num_heads=4, qk_dim=12, v_dim=12).double()
    theirs = torch.nn.MultiheadAttention(12, 4, kdim=10, vdim=10, batch_first=True).double()
    torch.nn.init.normal_(theirs.in_proj_bias)
    names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    layers = (ours.heads.to_query, ours.heads.to_key, ours.heads.to_value)
    for layer, name, bias in zip(layers, names, theirs.in_proj_bias.chunk(3), strict=True):
        layer.weight.data, layer.bias.data = getattr(theirs, name).data, bias
    ours.heads.to_out.load_state_dict(theirs.out_proj.state_dict())
    x, context = torch.randn(2, 5, 12).double(), torch.randn(2, 7, 10).double()
    keep = torch.rand(2, 7) > 0.4
    keep[:, 0] = True
    expected, weights = theirs(
        x, context, context, key_padding_mask=~keep, average_attn_weights=False
    )
    result = ours(x, context, mask=keep, need_weights=True)
    assert_equal(result.out, expected)
    assert_equal(result.weights, weights)
    assert_equal(ours(x, context, mask=keep).out, expected)


def test_the_plain_layer_has_four_projections_with_biases():
    attention = Attention(12, 10, num_heads=2)
    expected = (12 * 10 + 10) + 2 * (10 * 10 + 10) + (10 * 12 + 12)
    assert sum(p.numel() for p in attention.parameters()) == expected
    assert set(dict(attention.named_parameters())) == {
        f"heads.{layer}.{kind}"
        for layer in ("to_query", "to_key", "to_value", "to_out")
        for kind in ("weight", "bias")
    }


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_grouped_queries_share_heads_as_in_torch(groups):
    attention = MultiHeadAttention(12, num_heads=4, num_kv_heads=groups).double()
    x, context = torch.randn(2, 5, 12).double(), torch.randn(2, 7, 12).double()
    query, key, value = attention.heads.project(x, context)
    assert key.shape == (2, groups, 7, 3)
    read = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    expected = attention.heads.to_out(read.transpose(1, 2).flatten(-2))
    assert_equal(attention(x, context).out, expected)
    assert_equal(attention(x, context, need_weights=True).out, expected)


def test_as_many_groups_as_heads_are_plain_heads():
    torch.manual_seed(1)
    grouped = MultiHeadAttention(12, num_heads=4, num_kv_heads=4)
    torch.manual_seed(1)
    plain = MultiHeadAttention(12, num_heads=4)
    x = torch.randn(2, 5, 12)
    assert (grouped(x).out == plain(x).out).all()


def test_grouped_queries_are_those_of_keras(monkeypatch):
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    layer = keras.layers.GroupQueryAttention(3, 4, 2)
    x = torch.randn(2, 5, 12)
    layer.build(x.shape, x.shape)
    ours = MultiHeadAttention(12, num_heads=4, num_kv_heads=2)
    heads = ours.heads
    weights = []
    layers = {heads.to_query: (4, 3), heads.to_key: (2, 3), heads.to_value: (2, 3)}
    for projection, shape in layers.items():
        weights += [projection.weight.t().reshape(12, *shape), projection.bias.reshape(shape)]
    weights += [heads.to_out.weight.t().reshape(4, 3, 12), heads.to_out.bias]
    layer.set_weights([w.detach().numpy() for w in weights])
    expected = torch.as_tensor(layer(x, x)).detach().cpu()
    torch.testing.assert_close(ours(x).out, expected, rtol=0, atol=2e-5)


def copy_qkv(ours, theirs):
    names = ("to_query", "to_key", "to_value")
    for name, weight in zip(names, theirs.qkv.weight.chunk(3), strict=True):
        getattr(ours.heads, name).weight.data = weight


def test_talking_heads_are_those_of_timm():
    cait = pytest.importorskip("timm.models.cait")
    theirs = cait.TalkingHeadAttn(12, num_heads=4).double()
    torch.nn.init.zeros_(theirs.proj_l.bias)
    torch.nn.init.zeros_(theirs.proj_w.bias)
    ours = MultiHeadAttention(12, num_heads=4, is_talking=True).double()
    copy_qkv(ours, theirs)
    ours.heads.to_out.load_state_dict(theirs.proj.state_dict())
    ours.heads.score_mix.data = theirs.proj_l.weight.data
    ours.heads.weight_mix.data = theirs.proj_w.weight.data
    x = torch.randn(2, 7, 12).double()
    assert_equal(ours(x).out, theirs(x))


def test_masks_come_after_the_heads_have_mixed_their_scores():
    attention = MultiHeadAttention(12, num_heads=4, is_talking=True).double()
    torch.nn.init.normal_(attention.heads.score_mix)
    x, keep = torch.randn(2, 7, 12).double(), torch.rand(2, 7) > 0.4
    keep[:, 0] = True
    short = attention(x[:1], x[:1, keep[0]]).out
    assert_equal(attention(x[:1], x[:1], mask=keep[:1]).out, short)


@pytest.mark.parametrize("kernel", ["dense", "sdpa", "chunked"])
def test_differential_attention_is_that_of_timm(kernel):
    module = pytest.importorskip("timm.layers.diff_attention")
    theirs = module.DiffAttention(12, num_heads=3, depth=4).double()
    ours = DifferentialAttention(12, num_heads=3, depth=4).double()
    ours.kernel = kernel
    copy_qkv(ours, theirs)
    torch.nn.init.normal_(theirs.sub_norm.weight)
    ours.heads.to_out = theirs.proj
    ours.heads.norm_pair.weight.data = theirs.sub_norm.weight.data
    for name, parameter in ours.heads.lambdas.items():
        parameter.data = getattr(theirs, f"lambda_{name[0]}{name[-1]}").data
    x = torch.randn(2, 7, 12).double()
    # timm computes λ in float32.
    torch.testing.assert_close(ours(x).out, theirs(x), rtol=0, atol=1e-6)


def test_differential_weights_are_a_difference():
    attention = DifferentialAttention(12, num_heads=3, depth=2).double()
    x = torch.randn(2, 7, 12).double()
    weights = attention(x, need_weights=True).weights
    query, key, _ = attention.heads.project(x, x)
    both = (query @ key.mT / 2**0.5).softmax(-1)
    assert weights.shape == (2, 3, 7, 7)
    assert_equal(weights, both[:, 0::2] - attention.heads.lambda_() * both[:, 1::2])


def test_the_gate_is_a_sigmoid_of_the_query():
    attention = MultiHeadAttention(12, num_heads=4, is_gated=True).double()
    x, context = torch.randn(2, 5, 12).double(), torch.randn(2, 7, 12).double()
    query, key, value = attention.heads.project(x, context)
    read = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(-2)
    gate = torch.sigmoid(x @ attention.heads.to_gate.weight.t())
    assert_equal(attention(x, context).out, attention.heads.to_out(read * gate))


def test_rms_norm_is_that_of_qwen3():
    qwen = pytest.importorskip("transformers.models.qwen3.modeling_qwen3")
    theirs, ours = qwen.Qwen3RMSNorm(5, eps=1e-6), RMSNorm(5)
    theirs.weight.data = ours.weight.data = torch.randn(5)
    x = torch.randn(2, 3, 7, 5)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_qk_norm_normalises_each_head(kind):
    attention = MultiHeadAttention(12, num_heads=3, qk_norm=kind).double()
    weights = torch.randn(2, 4).double()
    attention.heads.norm_query.weight.data, attention.heads.norm_key.weight.data = weights
    x = torch.randn(2, 7, 12).double()
    query, key = (
        layer(x).unflatten(-1, (3, 4)).transpose(1, 2)
        for layer in (attention.heads.to_query, attention.heads.to_key)
    )

    def norm(z, weight):
        z = z - z.mean(-1, keepdim=True) if kind == "layer" else z
        return z / ((z**2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight

    expected = (norm(query, weights[0]) @ norm(key, weights[1]).mT / 2).softmax(-1)
    assert_equal(attention(x, need_weights=True).weights, expected)


def test_l2_norm_has_a_learned_scale_in_place_of_one_over_the_root():
    attention = MultiHeadAttention(12, num_heads=3, qk_norm="l2").double()
    attention.heads.scale.data = torch.tensor([3.5]).double()
    x = torch.randn(2, 7, 12).double()
    query, key = (
        F.normalize(layer(x).unflatten(-1, (3, 4)).transpose(1, 2), dim=-1)
        for layer in (attention.heads.to_query, attention.heads.to_key)
    )
    expected = (3.5 * query @ key.mT).softmax(-1)
    assert_equal(attention(x, need_weights=True).weights, expected)
    assert_equal(attention(x).out, attention(x, need_weights=True).out)


@pytest.mark.parametrize("kernel", ["dense", "sdpa", "chunked"])
def test_registers_are_tokens_appended_to_the_context(kernel):
    options = {"qkv": {"num_registers": 2}}
    attention = Attention(12, num_heads=3, kernel=kernel, options=options).double()
    plain = Attention(12, num_heads=3).double()
    plain.load_state_dict(
        {k: v for k, v in attention.state_dict().items() if k != "heads.registers"}
    )
    x, keep = torch.randn(2, 7, 12).double(), torch.rand(2, 7) > 0.4
    keep[0], keep[1, 0] = False, True
    longer = torch.cat([x, attention.heads.registers.expand(2, -1, -1)], 1)
    out = attention(x, mask=keep).out
    mask = torch.cat([keep, torch.ones(2, 2, dtype=torch.bool)], 1)
    assert_equal(out[1:], plain(x, longer, mask=mask).out[1:])
    # An example with nothing to attend to does not read registers instead.
    assert_equal(out[0], attention.heads.to_out.bias.expand(7, -1))
    assert_equal(attention(x).out, plain(x, longer).out)


def test_registers_have_no_position():
    options = {"qkv": {"num_registers": 2}, "dot": {"scale": 1.0}}
    attention = Attention(12, num_heads=3, position="alibi", options=options).double()
    x = torch.randn(2, 5, 12).double()
    query, key, value = attention.heads.project(x, x)
    bias = attention.position.bias(query, torch.arange(5), torch.arange(5))
    scores = query @ key.mT
    scores = torch.cat([scores[..., :5] + bias, scores[..., 5:]], -1)
    read = scores.softmax(-1) @ value
    assert_equal(attention(x).out, attention.heads.to_out(read.transpose(1, 2).flatten(-2)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_heads": 5, "qk_dim": 12}, "num_heads=5 does not divide qk_dim=12"),
        ({"num_heads": 4, "num_kv_heads": 3, "qk_dim": 12}, "num_kv_heads=3 does not divide"),
        ({"qk_norm": "l1"}, "qk_norm='l1'"),
        ({"has_out_proj": False, "v_dim": 5}, "v_dim=5 must be the result's width 8"),
    ],
)
def test_impossible_heads_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        QKVHeads(query_dim=8, key_dim=8, out_dim=8, **options)


def test_identity_projects_nothing_and_says_so():
    with pytest.raises(ValueError, match="heads=identity projects nothing: num_heads=2"):
        Attention(8, num_heads=2, heads="identity")
    with pytest.raises(ValueError, match="does not divide qk_dim=10"):
        Attention(10, num_heads=2, heads="differential")
