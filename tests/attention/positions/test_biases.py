"""ALiBi, T5's buckets and Swin's table against the papers' numbers and other implementations."""

from __future__ import annotations

import math

import pytest
import torch

from perceiver.attention import Attention
from perceiver.attention.positions.biases import (
    ALiBi,
    SwinTable,
    T5Buckets,
    alibi_slopes,
    t5_bucket,
)


def test_alibi_slopes_are_the_papers():
    assert alibi_slopes(8).tolist() == [2.0**-n for n in range(1, 9)]
    assert alibi_slopes(16).tolist() == pytest.approx([2 ** (-n / 2) for n in range(1, 17)])
    twelve = [2.0**-n for n in range(1, 9)] + [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]
    assert alibi_slopes(12).tolist() == pytest.approx(twelve)
    assert alibi_slopes(1).tolist() == [2.0**-8]


@pytest.mark.parametrize("heads", [1, 3, 4, 6, 20])
def test_alibi_slopes_are_those_of_bloom(heads):
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    mask = torch.ones(1, 5, dtype=torch.long)
    theirs = bloom.build_alibi_tensor(mask, heads, torch.float32)[:, 0, 1]
    torch.testing.assert_close(alibi_slopes(heads).float(), theirs)


def test_alibi_falls_with_the_distance_from_the_last_key_backwards():
    """Queries are aligned at the end: query i stands at p_i = i + k − q."""
    rows, columns = torch.arange(7 - 5, 7), torch.arange(7)
    bias = ALiBi(num_heads=3).bias(torch.zeros(1, 3, 5, 2).double(), rows, columns)
    for h, slope in enumerate(alibi_slopes(3).tolist()):
        for i in range(5):
            for j in range(7):
                assert bias[0, h, i, j].item() == pytest.approx(-slope * abs(i + 2 - j))


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (20, 50), (6, 9)])
def test_t5_buckets_are_those_of_t5(bidirectional, buckets, distance):
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    offsets = torch.arange(-300, 301)
    expected = t5.T5Attention._relative_position_bucket(
        offsets, bidirectional=bidirectional, num_buckets=buckets, max_distance=distance
    )
    ours = t5_bucket(
        offsets, bidirectional=bidirectional, num_buckets=buckets, max_distance=distance
    )
    assert (ours == expected).all()


def test_attention_with_t5_buckets_is_that_of_t5():
    transformers = pytest.importorskip("transformers")
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    config = transformers.T5Config(
        d_model=12, d_kv=4, num_heads=3, dropout_rate=0.0, relative_attention_num_buckets=8
    )
    theirs = t5.T5Attention(config, has_relative_attention_bias=True, layer_idx=0).double().eval()
    ours = Attention(
        12,
        num_heads=3,
        bias=False,
        position="t5_buckets",
        options={"dot": {"scale": 1.0}, "t5_buckets": {"num_buckets": 8}},
    ).double()
    for mine, name in (("to_query", "q"), ("to_key", "k"), ("to_value", "v"), ("to_out", "o")):
        getattr(ours.heads, mine).weight.data = getattr(theirs, name).weight.data
    ours.position.table.data = theirs.relative_attention_bias.weight.data
    x = torch.randn(2, 7, 12).double()
    torch.testing.assert_close(ours(x).out, theirs(x)[0], rtol=0, atol=1e-9)


def test_attention_with_swins_table_is_that_of_torchvision():
    swin = pytest.importorskip("torchvision.models.swin_transformer")
    theirs = swin.ShiftedWindowAttention(12, [2, 3], [0, 0], num_heads=3).double().eval()
    torch.nn.init.normal_(theirs.relative_position_bias_table)
    ours = Attention(
        12, num_heads=3, position="swin_table", options={"swin_table": {"grid": [2, 3]}}
    ).double()
    parts = zip(("to_query", "to_key", "to_value"), theirs.qkv.weight.chunk(3), strict=True)
    for name, weight in parts:
        getattr(ours.heads, name).weight.data = weight
    parts = zip(("to_query", "to_key", "to_value"), theirs.qkv.bias.chunk(3), strict=True)
    for name, bias in parts:
        getattr(ours.heads, name).bias.data = bias
    ours.heads.to_out.load_state_dict(theirs.proj.state_dict())
    ours.position.table.data = theirs.relative_position_bias_table.data
    x = torch.randn(2, 6, 12).double()
    expected = theirs(x.unflatten(1, (2, 3))).flatten(1, 2)
    torch.testing.assert_close(ours(x).out, expected, rtol=0, atol=1e-9)


def test_swins_table_is_indexed_by_query_minus_key():
    position = SwinTable(num_heads=2, grid=(2, 3))
    cells = torch.arange(6)
    bias = position.bias(torch.zeros(1, 2, 6, 4), cells, cells)
    for i in range(6):
        for j in range(6):
            dy, dx = i // 3 - j // 3, i % 3 - j % 3
            row = position.table[(dy + 1) * 5 + dx + 2]
            torch.testing.assert_close(bias[0, :, i, j], row)


def test_a_grid_must_be_given_and_fit():
    with pytest.raises(ValueError, match="position=swin_table needs grid="):
        SwinTable(num_heads=2)
    attention = Attention(4, position="swin_table", options={"swin_table": {"grid": (2, 3)}})
    with pytest.raises(ValueError, match="2 × 3 = 6 elements for 6 queries and 5 keys"):
        attention(torch.randn(1, 6, 4), torch.randn(1, 5, 4))


def test_t5_options_are_checked():
    with pytest.raises(ValueError, match="num_buckets=3"):
        T5Buckets(num_heads=2, num_buckets=3)
    assert math.isclose(T5Buckets(num_heads=2).table.std().item(), 0.02, rel_tol=0.5)
