"""FlexAttention is compiled for few lengths, and gives what the dense kernel gives for each."""

import pytest
import torch

from perceiver.attention import Attention
from perceiver.attention.kernels import flex
from perceiver.attention.patterns import Segments


@pytest.fixture
def graphs(monkeypatch):
    """What is compiled, as on a GPU; its backend runs it as it is."""
    from torch.nn.attention.flex_attention import flex_attention

    traced = []

    def backend(graph, inputs):
        traced.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(flex_attention, dynamic=False, backend=backend)
    monkeypatch.setattr(flex, "_compiled", lambda: compiled)
    monkeypatch.setattr(flex, "_is_compiled", lambda device: True)
    yield traced
    torch._dynamo.reset()


def check(attention, x, **options):
    with torch.no_grad():
        attention.kernel = "dense"
        expected = attention(x, **options).out
        attention.kernel = "flex"
        torch.testing.assert_close(attention(x, **options).out, expected, rtol=2e-5, atol=2e-5)


def test_a_compiled_length_is_whole_blocks_and_at_most_a_quarter_longer():
    lengths = [flex.compiled_length(length) for length in range(1, 20_000)]
    assert all(length % flex.BLOCK == 0 for length in lengths)
    assert all(
        n <= length < max(n + flex.BLOCK, 1.25 * n + 1) for n, length in enumerate(lengths, 1)
    )
    assert [flex.compiled_length(n) for n in (128, 1024, 1025, 16_384)] == [128, 1024, 1280, 16_384]
    assert len(set(lengths)) <= 28


@pytest.mark.parametrize("pattern", ["window", "window | global", "neighbourhood"])
def test_few_graphs_serve_texts_of_all_lengths(pattern, graphs):
    torch.manual_seed(0)
    options = {"window": {"left": 9}, "global": {"indices": [0, 7]}, "neighbourhood": {"size": 9}}
    attention = Attention(16, num_heads=2, pattern=pattern, options=options)
    for length in range(129, 513, 24):
        check(attention, torch.randn(2, length, 16))
    assert len(graphs) == 3


def test_masks_of_all_lengths_share_graphs(graphs):
    torch.manual_seed(0)
    attention = Attention(16, num_heads=2, pattern="window", options={"window": {"left": 9}})
    for length in (385, 400, 450, 512):
        mask = torch.arange(length) < torch.tensor([[length], [length // 2]])
        check(attention, torch.randn(2, length, 16), mask=mask)
    assert len(graphs) <= 2


def test_more_graphs_are_made_than_torch_makes_by_itself(graphs):
    """Segments are tensors of the given lengths, so each length is compiled for."""
    torch.manual_seed(0)
    attention = Attention(16, num_heads=2)
    for length in range(130, 142):
        segments = (torch.arange(length) // 50).expand(2, -1)
        attention.pattern = Segments(segments)
        check(attention, torch.randn(2, length, 16))
    assert len(graphs) == 12


@pytest.mark.parametrize("pairs", [1, 2 * 2 * 128 * 128])
def test_a_mask_may_be_made_of_a_few_examples_at_a_time(pairs, monkeypatch):
    torch.manual_seed(0)
    attention = Attention(16, num_heads=2, pattern="window", options={"window": {"left": 9}})
    mask = torch.arange(100) < torch.tensor([[100], [1], [37], [99], [64]])
    monkeypatch.setattr(flex, "MOST_PAIRS", pairs)
    joined = []
    join = flex._joined
    monkeypatch.setattr(
        flex, "_joined", lambda parts, *a: joined.append(len(parts)) or join(parts, *a)
    )
    check(attention, torch.randn(5, 100, 16), mask=mask)
    assert joined == [5 if pairs == 1 else 2]


def test_narrow_heads_get_zeros_where_a_kernel_is_compiled(monkeypatch):
    torch.manual_seed(0)
    widths, attend = [], flex._run
    monkeypatch.setattr(
        flex, "_run", lambda *x, **o: widths.append({t.shape[-1] for t in x}) or attend(*x, **o)
    )
    attention = Attention(6, num_heads=2, v_dim=14)
    check(attention, torch.randn(2, 9, 6))
    monkeypatch.setattr(flex, "least_width", lambda device: 16)
    check(attention, torch.randn(2, 9, 6))
    assert widths == [{3, 7}, {16}]
