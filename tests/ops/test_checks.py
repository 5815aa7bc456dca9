"""Bad input: one sentence that names what is wrong, from every public entrance."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from perceiver.attention import (
    Attention,
    AttentionStem,
    BahdanauAttention,
    BahdanauStep,
    Context,
    LocationAwareAttention,
    LuongAttention,
    LuongStep,
    MultiHeadAttention,
    ReinforceLoss,
    TutorialAttention,
    TutorialStep,
)
from perceiver.attention.memory import DNCMemory, NTMMemory
from perceiver.attention.memory.multiplicative import FastWeights, HyperLinear, Multiplicative
from perceiver.attention.patterns import Block, BlockSparse, Dilated, Lengths, Neighbourhood
from perceiver.ops.checks import check_shape, check_width
from perceiver.types import Segment

draw = torch.randn


def test_a_shape_is_compared_with_what_was_expected():
    check_shape("x", draw(2, 3), "batch", 3)
    for wrong in (draw(2, 4), draw(3), draw(1, 2, 3)):
        with pytest.raises(ValueError, match=r"x has shape .*; expected \(batch, 3\)"):
            check_shape("x", wrong, "batch", 3)
    check_width("x", draw(2, 3), 3)
    for wrong in (draw(2, 4), torch.tensor(1.0)):
        with pytest.raises(ValueError, match="its last dimension must be 3"):
            check_width("x", wrong, 3)


def bahdanau_step():
    return BahdanauStep(BahdanauAttention(4, 6, 5), input_dim=3, state_dim=4, context_dim=6)


def tutorial_step():
    attention = TutorialAttention(7, 6, max_len=9)
    return TutorialStep(attention, input_dim=3, state_dim=4, context_dim=6)


STEPS = {
    "embedding has shape (2, 4); expected (2, 3)": lambda: bahdanau_step()(
        draw(2, 4), draw(2, 4), draw(2, 7, 6)
    ),
    "state has shape (2, 5); its last dimension must be 4": lambda: bahdanau_step()(
        draw(2, 3), draw(2, 5), draw(2, 7, 6)
    ),
    "annotations has shape (2, 7, 8); expected (batch, length, 6)": lambda: bahdanau_step().start(
        draw(2, 7, 8)
    ),
    "embedding has shape (2, 4); expected (2, 3)  ": lambda: tutorial_step()(
        draw(2, 4), draw(2, 3), draw(2, 7, 6)
    ),
    "what attention read has shape (2, 5); its last dimension must be 4": lambda: LuongStep(
        LuongAttention(6, 5), state_dim=6, context_dim=4
    )(draw(2, 6), draw(2, 7, 5)),
    "image has shape (2, 3, 8, 8); expected (batch, height, width, 3)": lambda: AttentionStem(
        in_dim=3, out_dim=4
    )(draw(2, 3, 8, 8)),
    "query has shape (2, 7); expected (2, 8)": lambda: LocationAwareAttention(8, 6).step(
        draw(2, 7), draw(2, 7, 6)
    ),
    "context has shape (2, 7, 8); expected (2, length, 6)": lambda: LocationAwareAttention(
        8, 6
    ).step(draw(2, 8), draw(2, 7, 8)),
    "context holds NaN": lambda: LocationAwareAttention(8, 6).step(
        draw(2, 8), torch.full((2, 7, 6), float("nan")), mask=torch.zeros(2, 7, dtype=torch.bool)
    ),
    "x has shape (2, 4); its last dimension must be 3": lambda: Multiplicative(3, 4, 5)(
        draw(2, 4), draw(2, 4)
    ),
    "z has shape (2, 4); its last dimension must be 5": lambda: HyperLinear(3, 4, 5)(
        draw(2, 3), draw(2, 4)
    ),
    "choices is empty": lambda: ReinforceLoss()(draw(4), []),
}


@pytest.mark.parametrize("sentence", STEPS)
def test_tensors_of_other_widths_are_named(sentence):
    with pytest.raises(ValueError, match="^" + re.escape(sentence.strip())):
        STEPS[sentence]()


@pytest.mark.parametrize("memory", [NTMMemory, DNCMemory, FastWeights])
def test_a_memory_names_a_control_vector_of_another_shape(memory):
    made = memory(4)
    state = made.initial(2, torch.zeros(1))
    for wrong in ((2, 5), (3, 4)):
        with pytest.raises(ValueError, match=r"control has shape .*; expected \(2, 4\)"):
            made.step(draw(*wrong), state)
    with pytest.raises(ValueError, match="control_dim=0 must be at least 1"):
        memory(0)


def test_sizes_that_make_no_attention_are_named():
    with pytest.raises(ValueError, match=r"dropout=1.5 must lie in \[0, 1\]"):
        Attention(8, dropout=1.5)
    with pytest.raises(ValueError, match="num_heads=0 must be at least 1"):
        Attention(8, num_heads=0)
    with pytest.raises(ValueError, match="key_dim=-2 must be at least 1"):
        Attention(8, -2)


def test_tables_without_rows_are_refused():
    with pytest.raises(ValueError, match="max_len=0 must be at least 1"):
        TutorialAttention(8, 6, max_len=0)
    with pytest.raises(ValueError, match="max_distance=-1 must be at least 1"):
        Attention(8, position="relative_table", options={"relative_table": {"max_distance": -1}})


def test_segments_of_another_width_than_the_attention_are_named():
    with pytest.raises(ValueError, match="context has segments of width 15; expected 6"):
        Attention(8, 6)(draw(2, 5, 8), Context([pixels()]))


def test_no_groups_of_keys_are_refused():
    for groups in (0, -2):
        with pytest.raises(ValueError, match=f"num_kv_heads={groups} does not divide num_heads=4"):
            MultiHeadAttention(8, num_heads=4, num_kv_heads=groups)


def test_patterns_need_positive_sizes():
    for make in (Block, Neighbourhood):
        with pytest.raises(ValueError, match="size=0 must be at least 1"):
            make(0)
    with pytest.raises(ValueError, match="dilation=0 must be at least 1"):
        Dilated(2, 0)
    with pytest.raises(ValueError, match="size=0 must be at least 1"):
        BlockSparse([[1]], 0)


@pytest.mark.parametrize("kernel", ["linear", "chunked", "dense"])
def test_lengths_are_a_mask_over_keys_for_every_kernel(kernel):
    attention = Attention(8, 6, score="feature_dot", normaliser="sum", kernel=kernel).double()
    query, context = draw(2, 5, 8).double(), draw(2, 7, 6).double()
    lengths = torch.tensor([7, 3])
    mask = torch.arange(7) < lengths[:, None]
    expected = attention(query, context, mask=mask).out
    out = attention(query, context, mask=Lengths(lengths)).out
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"lengths has shape \(3,\); expected \(2\)"):
        attention(query, context, mask=Lengths(torch.tensor([1, 2, 3])))


# Runs without the type checks that tests add to annotations, as a user's program does.
UNTYPED = """
import torch
from perceiver.attention import Attention, Context, doubly_stochastic_penalty, reinforce_loss
from perceiver.attention.memory.multiplicative import fast_weight_step
from perceiver.attention.patterns import Lengths, Segments
from perceiver.types import Segment

draw = torch.randn
attention, query, context = Attention(8, 6), draw(2, 5, 8), draw(2, 7, 6)
CALLS = [
    lambda: Attention(8, normaliser=None),
    lambda: Attention(8, heads=3),
    lambda: Attention(8, options=[1]),
    lambda: Attention(8, options={"entmax": 3}),
    lambda: Attention(8, normaliser="entmax", options={"entmax": {"alpha": "x"}}),
    lambda: Attention(8, pattern="global", options={"global": {"indices": 3}}),
    lambda: attention(query.numpy(), context),
    lambda: attention(query, [context]),
    lambda: attention(None, context),
    lambda: attention(query, context, mask=[[True] * 7] * 2),
    lambda: attention(query, context, mask=torch.ones(2, 7).numpy()),
    lambda: attention(query, context, mask=Segments(torch.zeros(2, 5))),
    lambda: attention(query, context, mask=Lengths([7, 3])),
    lambda: Context([Segment(draw(7, 6))]),
    lambda: Context([Segment(draw(2, 7, 3), constant=draw(2, 3))]),
    lambda: Context([Segment(draw(2, 7, 6), mask=draw(2, 5) > 0)]),
    lambda: Context([Segment(draw(2, 7, 6), mask=draw(2, 7))]),
    lambda: Context([Segment(draw(2, 7, 6))], mask=draw(2, 5, 7) > 0),
    lambda: reinforce_loss(draw(4, 1), draw(4, 1, 1), draw(4, 1, 1)),
    lambda: reinforce_loss(draw(4), draw(3, 1, 1), draw(3, 1, 1)),
    lambda: reinforce_loss(draw(4), *attention(query, context).aux[1:3]),
    lambda: doubly_stochastic_penalty(draw(7)),
    lambda: fast_weight_step(draw(2, 3, 4), draw(2, 1), draw(2, 3), draw(2, 4), draw(2)),
]
for call in CALLS:
    try:
        print("no error", call())
    except (TypeError, ValueError) as error:
        print(type(error).__name__, error)
"""
SENTENCES = [
    "ValueError unknown normaliser None: choose one of argmax, ",
    "ValueError unknown heads 3: choose one of differential, ",
    "ValueError options=[1] must name members",
    "ValueError options.entmax=3 must name options",
    "ValueError normaliser=entmax cannot be made of alpha='x': ",
    "ValueError global has indices=3: give a list",
    "ValueError query is a ndarray; expected (batch, length, 8), a tensor",
    "ValueError context is a list; expected (batch, length, 6), a tensor",
    "ValueError query is a NoneType; expected (batch, length, 8), a tensor",
    "TypeError mask is a list; give a boolean tensor",
    "TypeError mask is a ndarray; give a boolean tensor",
    "ValueError the segments of keys has shape (2, 5); expected (2, 7)",
    "ValueError lengths is a list; expected (2), a tensor",
    "ValueError the content of segment 0 of a context has shape (7, 6); expected (b, tokens, c)",
    "ValueError the constant of segment 0 of a context has shape (2, 3); expected (c)",
    "ValueError the mask of segment 0 of a context has shape (2, 5); expected (2, 7)",
    "ValueError the mask of segment 0 of a context is torch.float32; give booleans",
    "ValueError the mask of a context has shape (2, 5, 7); expected (2, 7)",
    "ValueError log_likelihood has shape (4, 1); expected (4)",
    "ValueError log_likelihood has shape (4,); expected (3)",
    "ValueError log_prob and entropy are None: the attention draws nothing; ",
    "ValueError weights has shape (7,); expected (b, h, q, k)",
    "ValueError key has shape (2, 1); its last dimension must be 4",
]


@pytest.mark.slow
def test_what_annotations_forbid_is_named_where_nobody_checks_them():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", UNTYPED], cwd=root, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for line, sentence in zip(done.stdout.splitlines(), SENTENCES, strict=True):
        assert line.startswith(sentence)


def test_luongs_attention_names_what_it_takes():
    with pytest.raises(
        ValueError,
        match=r"local='local-p' must be 'monotonic' \(local-m\), 'predictive' \(local-p\)",
    ):
        LuongAttention(4, local="local-p")
    with pytest.raises(ValueError, match="score='location' needs max_len, the most keys"):
        LuongAttention(4, score="location")


def pixels(batch=2, width=3, **parts):
    return Segment(draw(batch, 6, width), axes=(draw(2, 5), draw(3, 7)), **parts)


CONTEXTS = {
    "a context has no segments": lambda: Context([]),
    "the content of segment 1 of a context has shape (4, 6, 3); expected (2, tokens, c)": lambda: (
        Context([pixels(), pixels(batch=4)])
    ),
    "segment 1 of a context is 16 wide and segment 0 15": lambda: Context(
        [pixels(), pixels(width=4)]
    ),
    "segment 0 of a context has position codes of a grid [2, 5] for 6 tokens": lambda: Context(
        [Segment(draw(2, 6, 3), axes=(draw(2, 5), draw(5, 7)))]
    ),
    "a position code of segment 0 of a context has shape (2,); expected": lambda: Context(
        [Segment(draw(2, 6, 3), axes=(draw(2), draw(3, 7)))]
    ),
    "the norm of a context is 13 wide and its segments 15": lambda: Context(
        [pixels()], torch.nn.LayerNorm(13)
    ),
}


@pytest.mark.parametrize("sentence", CONTEXTS)
def test_segments_that_make_no_context_are_named(sentence):
    with pytest.raises(ValueError, match="^" + re.escape(sentence)):
        CONTEXTS[sentence]()


def test_a_context_keeps_the_masks_of_its_segments():
    mask = torch.tensor([[True, True, False, True, False, False], [False] * 6])
    context = Context([pixels(mask=mask), pixels()])
    assert context.mask.tolist() == torch.cat([mask, torch.ones(2, 6) > 0], 1).tolist()
    assert Context([pixels(), pixels()]).mask is None
    attention, query = Attention(8, 15), draw(2, 5, 8)
    expected = attention(query, context.tokens(), mask=context.mask).out
    torch.testing.assert_close(attention(query, context).out, expected)
