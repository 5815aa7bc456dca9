"""Patterns against their definitions, in loops; block masks from the same predicates."""

from __future__ import annotations

import re

import pytest
import torch

from perceiver.attention import Attention
from perceiver.attention.catalogue import AXES, build_pattern
from perceiver.attention.kernels.flex import block_mask
from perceiver.attention.patterns import (
    Block,
    BlockSparse,
    Causal,
    Dilated,
    Full,
    Global,
    Lengths,
    Local2d,
    Neighbourhood,
    Prefix,
    Segments,
    Window,
)

LAYOUT = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0)) > 0.5
QUERY_SEGMENTS = torch.tensor([[0, 0, 1, 1, 2, 2, 2], [0, 1, 1, 1, 1, 3, 3]])
KEY_SEGMENTS = torch.tensor([[0] * 4 + [1] * 4 + [2] * 3, [1] * 5 + [3] * 6])


def neighbourhood(p, j, k, size):
    start = min(max(p - size // 2, 0), max(k - size, 0))
    return start <= j < start + size


# pattern, and the same as a function of (b, h, i, j, p_i, number of keys)
PATTERNS = {
    "full": (Full(), lambda b, h, i, j, p, k: True),
    "causal": (Causal(), lambda b, h, i, j, p, k: j <= p),
    "window": (Window(2, 1), lambda b, h, i, j, p, k: p - 2 <= j <= p + 1),
    "block": (Block(3), lambda b, h, i, j, p, k: p // 3 == j // 3),
    "dilated": (
        Dilated(2, 3),
        lambda b, h, i, j, p, k: abs(p - j) <= 6 and abs(p - j) % 3 == 0,
    ),
    "neighbourhood": (Neighbourhood(5), lambda b, h, i, j, p, k: neighbourhood(p, j, k, 5)),
    "prefix": (Prefix(3), lambda b, h, i, j, p, k: j < 3 or j <= p),
    "prefixes": (
        Prefix(torch.tensor([2, 5])),
        lambda b, h, i, j, p, k: j < (2, 5)[b] or j <= p,
    ),
    "global": (Global([0, 5]), lambda b, h, i, j, p, k: p in (0, 5) or j in (0, 5)),
    "segments": (
        Segments(QUERY_SEGMENTS, KEY_SEGMENTS),
        lambda b, h, i, j, p, k: bool(QUERY_SEGMENTS[b, i] == KEY_SEGMENTS[b, j]),
    ),
    "lengths": (Lengths(torch.tensor([0, 6])), lambda b, h, i, j, p, k: j < (0, 6)[b]),
    "block_sparse": (
        BlockSparse(LAYOUT, 3),
        lambda b, h, i, j, p, k: bool(LAYOUT[h, i // 3, j // 3]),
    ),
    "and": (
        Causal() & Lengths(torch.tensor([0, 6])),
        lambda b, h, i, j, p, k: j <= p and j < (0, 6)[b],
    ),
    "or": (
        Window(1, 0) | Global([2]),
        lambda b, h, i, j, p, k: p - 1 <= j <= p or p == 2 or j == 2,
    ),
    "nested": (
        (Window(1, 0) | Global([2])) & Causal() & BlockSparse(LAYOUT, 3),
        lambda b, h, i, j, p, k: (
            (p - 1 <= j <= p or p == 2 or j == 2) and j <= p and bool(LAYOUT[h, i // 3, j // 3])
        ),
    ),
}


def looped(definition, queries, keys):
    mask = torch.zeros(2, 2, queries, keys, dtype=torch.bool)
    for b in range(2):
        for h in range(2):
            for i in range(queries):
                for j in range(keys):
                    mask[b, h, i, j] = definition(b, h, i, j, i + keys - queries, keys)
    return mask


@pytest.mark.parametrize("name", PATTERNS)
def test_the_mask_is_the_definition_for_all_indices(name):
    pattern, definition = PATTERNS[name]
    mask = pattern.dense(7, 11, batch=2, heads=2)
    assert mask.dtype == torch.bool
    assert mask.dim() == 4
    assert (mask.expand(2, 2, 7, 11) == looped(definition, 7, 11)).all()


@pytest.mark.parametrize("name", [n for n in PATTERNS if n not in ("segments", "block_sparse")])
def test_more_queries_than_keys_are_aligned_at_the_end(name):
    if name == "nested":
        pytest.skip("its layout has blocks for seven queries")
    pattern, definition = PATTERNS[name]
    mask = pattern.dense(11, 7, batch=2, heads=2)
    assert (mask.expand(2, 2, 11, 7) == looped(definition, 11, 7)).all()


@pytest.mark.parametrize("name", PATTERNS)
def test_block_masks_come_from_the_same_predicate(name):
    """FlexAttention's element mask, asked for every index, and its blocks, which must cover it."""
    pattern, _ = PATTERNS[name]
    mask = pattern.dense(7, 11, batch=2, heads=2).expand(2, 2, 7, 11)
    blocks = block_mask(pattern, 7, 11, batch=2, heads=2)
    b, h, i, j = torch.meshgrid(*(torch.arange(n) for n in (2, 2, 7, 11)), indexing="ij")
    assert (blocks.mask_mod(b, h, i, j) == mask).all()
    covered = blocks.to_dense()[:, :, 0, 0].bool()
    assert (covered == mask.flatten(2).any(-1)).all()


def test_the_neighbourhood_is_never_shortened():
    mask = Neighbourhood(5).dense(11, 11)[0, 0]
    assert (mask.sum(-1) == 5).all()
    assert Neighbourhood(5).dense(3, 3).all()


def test_local2d_is_a_square_around_each_pixel():
    mask = Local2d((3, 5), 3).dense(15, 15)[0, 0]
    for i in range(15):
        for j in range(15):
            near = abs(i // 5 - j // 5) <= 1 and abs(i % 5 - j % 5) <= 1
            assert mask[i, j] == near
    padded = Local2d((3, 5), 3, "zero_pad").dense(15, 15)[0, 0]
    assert padded.shape == (15, 5 * 7)
    assert (padded[:, :15] == mask).all()
    assert (padded.sum(-1) == 9).all()


def test_windows_are_those_of_hugging_face_and_longformer():
    """A sliding window W is (W − 1, 0); Longformer's w is (w/2, w/2)."""
    assert Window(2, 0).dense(7, 7)[0, 0, 4].nonzero().flatten().tolist() == [2, 3, 4]
    assert Window(2, 2).dense(7, 7)[0, 0, 3].nonzero().flatten().tolist() == [1, 2, 3, 4, 5]


def test_names_combine():
    options = {"window": {"left": 1, "right": 0}, "global": {"indices": [2]}}
    pattern = build_pattern("window | global & causal", options, model_dim=4)
    expected = Window(1, 0) | (Global([2]) & Causal())
    assert (pattern.dense(7, 7) == expected.dense(7, 7)).all()
    assert isinstance(build_pattern("causal", {}, model_dim=4), Causal)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("(window | global) & causal", (Window(1, 0) | Global([2])) & Causal()),
        ("causal&(global|window)", Causal() & (Global([2]) | Window(1, 0))),
        ("block | (window | global) & causal", Block(3) | (Window(1, 0) | Global([2])) & Causal()),
        ("((window))", Window(1, 0)),
    ],
)
def test_parentheses_bind_closest(choice, expected):
    options = {"window": {"left": 1}, "global": {"indices": [2]}, "block": {"size": 3}}
    pattern = build_pattern(choice, options, model_dim=4)
    assert (pattern.dense(11, 11) == expected.dense(11, 11)).all()


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("casual", "unknown pattern 'casual': did you mean 'causal'"),
        ("causal & fulll", "did you mean 'full'"),
        ("lengths", "pattern=lengths needs lengths"),
        ("window", "pattern=window needs left"),
        ("local2d", "pattern=local2d needs grid="),
        ("causal | luong_local", "luong_local follows the queries"),
        ("full & (causal | luong_local)", "luong_local follows the queries"),
        ("(causal | full", "in matching parentheses"),
        ("causal | full)", "in matching parentheses"),
        ("()", "in matching parentheses"),
        ("causal &", "names joined by & and |"),
        ("causal full", "names joined by & and |"),
        ("", "names joined by & and |"),
    ],
)
def test_patterns_that_cannot_be_built_say_why(choice, said):
    with pytest.raises(ValueError, match=said):
        build_pattern(choice, {}, model_dim=4)


def test_a_layout_too_small_is_refused():
    with pytest.raises(ValueError, match="7 queries and 13 keys need"):
        BlockSparse(LAYOUT, 3).dense(7, 13, batch=2, heads=2)


def test_every_pattern_is_tested_here():
    assert set(AXES["pattern"]) - {"local2d", "luong_local"} <= set(PATTERNS)


GIVEN = {
    "lengths has shape (3,); expected (2)": Lengths(torch.tensor([1, 2, 3])),
    "lengths has shape (2, 1); expected (2)": Lengths(torch.tensor([[1], [2]])),
    "the length of prefixes has shape (3,); expected (2)": Prefix(torch.tensor([1, 2, 3])),
    "the segments of queries has shape (3, 5); expected (2, 5)": Segments(
        torch.zeros(3, 5), torch.zeros(3, 7)
    ),
    "the segments of queries has shape (2, 7); expected (2, 5)": Segments(torch.zeros(2, 7)),
    "the segments of keys has shape (3, 7); expected (2, 7)": Segments(
        torch.zeros(2, 5), torch.zeros(3, 7)
    ),
    "block_sparse has a layout of shape (3, 5, 7); expected (query blocks, key blocks), or (4, ": (
        BlockSparse(torch.ones(3, 5, 7), 1)
    ),
    "block_sparse has a layout of shape (7,); expected": BlockSparse(torch.ones(7), 1),
}


@pytest.mark.parametrize("place", ["attention", "mask", "part"])
@pytest.mark.parametrize("said", GIVEN)
def test_a_pattern_of_other_examples_heads_or_lengths_is_named(said, place):
    """As the attention's own, as the mask of a call, or as a part of either."""
    own = {"attention": GIVEN[said], "mask": Full(), "part": Causal() & GIVEN[said]}[place]
    attention = Attention(8, num_heads=4, pattern=own)
    mask = GIVEN[said] if place == "mask" else None
    with pytest.raises(ValueError, match="^" + re.escape(said)):
        attention(torch.randn(2, 5, 8), torch.randn(2, 7, 8), mask=mask)
