"""Which kernel runs: the fastest that is exact, or the one asked for, or a refusal by axis."""

from __future__ import annotations

import pytest
import torch

from perceiver.attention import Attention, LuongAttention
from perceiver.attention.kernels import Request, select_kernel

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


def test_the_fastest_exact_kernel_is_chosen(monkeypatch):
    chosen = []
    for name in ("dense", "sdpa", "linear", "chunked"):
        original = getattr(__import__("perceiver.attention.attention", fromlist=["x"]), name)

        def spy(problem, *, _name=name, _original=original, **options):
            chosen.append(_name)
            return _original(problem, **options)

        monkeypatch.setattr(f"perceiver.attention.attention.{name}", spy)
    x = torch.randn(1, 3, 6)
    Attention(6)(x)
    Attention(6, normaliser="entmax")(x)
    Attention(6, score="feature_dot", normaliser="sum")(x)
    Attention(6)(x, need_weights=True)
    Attention(6, dropout=0.1).train()(x)
    LuongAttention(6, local="predictive")(x)
    monkeypatch.setattr("perceiver.attention.kernels.select.LARGE", 1)
    Attention(6, score="additive")(x)
    assert chosen == ["sdpa", "dense", "linear", "dense", "dense", "dense", "chunked"]


def request(**changes):
    attention = Attention(64, num_heads=2, **changes.pop("attention", {}))
    given = {
        "score": attention.score,
        "position": attention.position,
        "pattern": attention.pattern,
        "normaliser": attention.normaliser,
        "heads": attention.heads,
        "numbers": 1 << 24,
        "device": "cuda",
        "pairs": 1 << 23,
    }
    return Request(**(given | changes))


WINDOW = {"pattern": "window", "options": {"window": {"left": 99}}}
LONGFORMER = {
    "pattern": "window | global",
    "options": {"window": {"left": 99}, "global": {"indices": [0]}},
}


@pytest.mark.parametrize(
    ("changes", "kernel"),
    [
        ({"attention": WINDOW}, "flex"),
        ({"attention": LONGFORMER}, "flex"),
        ({"attention": {"pattern": "causal & block", "options": {"block": {"size": 9}}}}, "flex"),
        ({"attention": WINDOW, "device": "cpu"}, "sdpa"),
        ({"attention": WINDOW, "pairs": 1 << 16}, "sdpa"),
        ({"attention": WINDOW, "dtype": torch.float64}, "sdpa"),
        ({"attention": WINDOW, "dropout": 0.1}, "dense"),
        ({"attention": WINDOW | {"position": "alibi"}}, "sdpa"),
        ({"attention": WINDOW | {"qk_dim": 16}}, "sdpa"),
        ({"attention": WINDOW | {"normaliser": "sparsemax"}}, "dense"),
        ({"attention": {"pattern": "full"}}, "sdpa"),
        ({"attention": {"pattern": "causal"}}, "sdpa"),
        ({"attention": {"pattern": "causal | block", "options": {"block": {"size": 9}}}}, "sdpa"),
    ],
)
def test_flex_is_chosen_where_skipped_blocks_pay(changes, kernel):
    assert select_kernel("auto", request(**changes)) == kernel
