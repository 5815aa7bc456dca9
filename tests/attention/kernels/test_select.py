"""Which kernel runs: the fastest that is exact, or the one asked for, or a refusal by axis."""

from __future__ import annotations

import pytest
import torch

from perceiver.attention import Attention, Context, LuongAttention
from perceiver.attention.kernels import KERNELS, Problem, select_kernel
from perceiver.types import Segment

LINEAR = {"score": "feature_dot", "normaliser": "sum"}


@pytest.mark.parametrize(
    ("kernel", "options", "said"),
    [
        ("sdpa", {"score": "additive"}, "score: Additive is not a dot product"),
        ("sdpa", {"normaliser": "entmax"}, "normaliser: Entmax is not softmax"),
        ("sdpa", {"softcap": 5.0}, "score: a softcap"),
        ("sdpa", {"position": "relative_table"}, "position: RelativeTable adds"),
        ("sdpa", {"options": {"qkv": {"is_talking": True}}}, "heads: talking heads"),
        ("sdpa", {"options": {"softmax": {"sink": 0.0}}}, "normaliser: softmax with a sink"),
        ("flex", {"pattern": "luong_local"}, "pattern: LuongLocal"),
        ("flex", {"dropout": 0.1}, "dropout"),
        ("chunked", {"normaliser": "reinforce"}, "normaliser: Reinforce"),
        ("linear", {}, "score: Dot is not feature_dot"),
        ("linear", {"score": "feature_dot"}, "normaliser: Softmax is not sum"),
        (
            "linear",
            LINEAR | {"pattern": "prefix", "options": {"prefix": {"length": 2}}},
            "pattern: Prefix is neither full nor causal",
        ),
        ("separable", {"score": "cosine"}, "score: Cosine is not linear in the keys"),
    ],
)
def test_a_kernel_that_can_never_serve_is_refused_when_it_is_chosen(kernel, options, said):
    with pytest.raises(ValueError, match=f"kernel={kernel} refuses this attention; {said}"):
        Attention(12, num_heads=2, kernel=kernel, **options)


@pytest.mark.parametrize(
    ("kernel", "options", "call", "said"),
    [
        ("sdpa", {}, {"need_weights": True}, "weights: it never forms them"),
        ("chunked", {}, {"need_weights": True}, "weights: it never holds"),
        (
            "linear",
            LINEAR,
            {"mask": torch.ones(2, 5, 7, dtype=torch.bool)},
            "mask: it differs from query to query",
        ),
    ],
)
def test_a_kernel_that_cannot_serve_a_call_says_why(kernel, options, call, said):
    attention = Attention(12, num_heads=2, kernel=kernel, **options)
    with pytest.raises(ValueError, match=f"kernel={kernel} refuses this attention; {said}"):
        attention(torch.randn(2, 5, 12), torch.randn(2, 7, 12), **call)


def test_unknown_kernels_are_refused():
    with pytest.raises(ValueError, match="unknown kernel 'flash'"):
        Attention(12, kernel="flash")


def test_flex_refuses_to_train_on_a_cpu():
    attention = Attention(16, num_heads=1, kernel="flex")
    with pytest.raises(ValueError, match="kernel=flex has no backward on a CPU"):
        attention(torch.randn(2, 5, 16))


def chosen(attention, query, context=None, **call):
    problem = attention.problem(query, query if context is None else context, **call)
    return select_kernel("auto", problem).name


def test_the_cheapest_exact_kernel_is_chosen(monkeypatch):
    x = torch.randn(1, 13, 6)
    additive = Attention(6, score="additive")
    assert chosen(Attention(6), x) == "sdpa"
    assert chosen(Attention(6, normaliser="entmax"), x) == "dense"
    assert chosen(Attention(6, score="feature_dot", normaliser="sum"), x) == "linear"
    assert chosen(Attention(6), x, need_weights=True) == "dense"
    assert chosen(Attention(6, dropout=0.1).train(), x) == "dense"
    assert chosen(Attention(6, dropout=0.1).eval(), x) == "sdpa"
    assert chosen(LuongAttention(6, local="predictive"), x) == "dense"
    assert chosen(additive, x) == "dense"
    # Beyond 1 GiB of scores it is chunks, of which the dense kernel holds all.
    monkeypatch.setattr("perceiver.attention.kernels.select.ROOMY", 13 * 13 * 6)
    assert chosen(additive, x) == "chunked"
    assert chosen(Attention(6, dropout=0.1, score="additive").train(), x) == "chunked"


def test_the_kernel_that_is_selected_runs(monkeypatch):
    ran = []
    for name, kernel in KERNELS.items():
        run = type(kernel).run
        monkeypatch.setattr(
            type(kernel),
            "run",
            lambda self, problem, name=name, run=run: ran.append(name) or run(self, problem),
        )
    for name in ("auto", "dense", "chunked"):
        Attention(6, kernel=name)(torch.randn(1, 3, 6))
    assert ran == ["sdpa", "dense", "chunked"]


WINDOW = {"pattern": "window", "options": {"window": {"left": 99}}}
LONGFORMER = {
    "pattern": "window | global",
    "options": {"window": {"left": 99}, "global": {"indices": [0]}},
}


@pytest.mark.parametrize(
    ("options", "call", "kernel"),
    [
        (WINDOW, {}, "flex"),
        (LONGFORMER, {}, "flex"),
        ({"pattern": "causal & block", "options": {"block": {"size": 9}}}, {}, "flex"),
        (WINDOW, {"device": "cpu"}, "sdpa"),
        (WINDOW, {"length": 256}, "sdpa"),
        (WINDOW, {"dtype": torch.float64}, "sdpa"),
        (WINDOW | {"dropout": 0.1}, {}, "dense"),
        (WINDOW | {"position": "alibi"}, {}, "sdpa"),
        (WINDOW | {"qk_dim": 16}, {}, "sdpa"),
        (WINDOW | {"normaliser": "sparsemax"}, {}, "dense"),
        ({"pattern": "full"}, {}, "sdpa"),
        ({"pattern": "causal"}, {}, "sdpa"),
        ({"pattern": "causal | block", "options": {"block": {"size": 9}}}, {}, "sdpa"),
    ],
)
def test_flex_is_chosen_where_skipped_blocks_pay(options, call, kernel, monkeypatch):
    device, length = call.get("device", "cuda"), call.get("length", 1 << 12)
    monkeypatch.setattr(Problem, "device", torch.device(device))
    x = torch.empty(1, length, 64, dtype=call.get("dtype", torch.float32))
    assert chosen(Attention(64, num_heads=2, **options), x) == kernel


# Nobody has measured ours there.
@pytest.mark.parametrize("is_segmented", [False, True])
def test_on_a_gpu_auto_takes_kernels_of_torch_alone(is_segmented, monkeypatch):
    attention = Attention(64, 261)
    context = torch.empty(1, 50_176, 261)
    context = Context([Segment(context)]) if is_segmented else context
    assert chosen(attention, torch.empty(1, 512, 64), context) in ("folded", "separable")
    monkeypatch.setattr(Problem, "device", torch.device("cuda"))
    assert chosen(attention, torch.empty(1, 512, 64), context) == "sdpa"
    # Also where theirs would hold less.
    monkeypatch.setattr("perceiver.attention.kernels.select.ROOMY", 1)
    assert chosen(attention, torch.empty(1, 512, 64), context) == "sdpa"
