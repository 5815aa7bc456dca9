"""Every preset and every named constructor in float64, float32, bfloat16, float16 and autocast."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch

from perceiver import attention as catalogue
from perceiver.attention import (
    Attention,
    AttentionStem,
    BahdanauAttention,
    BahdanauStep,
    CosineAttention,
    DifferentialAttention,
    DotAttention,
    HardAttention,
    LinearAttention,
    LocationAwareAttention,
    LuongAttention,
    LuongStep,
    MultiHeadAttention,
    SingleHeadAttention,
    StandAloneSelfAttention,
    TutorialAttention,
    TutorialStep,
)
from tests.attention.presets import PRESETS, build, inputs

# A rounding may turn these to another key, or move a window by one.
CHOOSE = {"hard_argmax", "hard_gumbel", "hard_reinforce", "topk", "luong_local_p"}
Q, K = 8, 12
HALVES = [torch.bfloat16, torch.float16]


def pair(query_dim=Q, key_dim=K, queries=5, keys=7):
    return torch.randn(2, queries, query_dim), torch.randn(2, keys, key_dim)


def decoder_state(input_dim=3):
    return torch.randn(2, input_dim), torch.randn(2, Q), torch.randn(2, 7, K)


# Constructor → (a small one, its inputs).
NAMED = {
    "Attention": lambda: (Attention(Q, K), pair()),
    "AttentionStem": lambda: (
        AttentionStem(in_dim=3, out_dim=8, num_heads=2),
        (torch.randn(2, 5, 7, 3),),
    ),
    "BahdanauAttention": lambda: (BahdanauAttention(Q, K, 5), pair()),
    "BahdanauStep": lambda: (
        BahdanauStep(BahdanauAttention(Q, K, 5), input_dim=3, state_dim=Q, context_dim=K),
        decoder_state(),
    ),
    "CosineAttention": lambda: (CosineAttention(Q, K, num_heads=2), pair()),
    "DifferentialAttention": lambda: (DifferentialAttention(Q, K, num_heads=2), pair()),
    "DotAttention": lambda: (DotAttention(Q), pair(key_dim=Q)),
    "HardAttention": lambda: (HardAttention(Q, K, 5), pair()),
    "LinearAttention": lambda: (LinearAttention(Q, K, num_heads=2), pair()),
    "LocationAwareAttention": lambda: (LocationAwareAttention(Q, K, 5, filter_size=3), pair()),
    "LuongAttention": lambda: (LuongAttention(Q, K, score="concat", hidden_dim=5), pair()),
    "LuongStep": lambda: (
        LuongStep(LuongAttention(Q, K), state_dim=Q, context_dim=K),
        (torch.randn(2, Q), torch.randn(2, 7, K)),
    ),
    "MultiHeadAttention": lambda: (
        MultiHeadAttention(Q, K, num_heads=4, num_kv_heads=2, position="rope", qk_dim=8),
        pair(),
    ),
    "SingleHeadAttention": lambda: (SingleHeadAttention(Q, K), pair()),
    "StandAloneSelfAttention": lambda: (
        StandAloneSelfAttention(Q, grid=(2, 3), size=3, num_heads=2),
        (torch.randn(2, 6, Q),),
    ),
    "TutorialAttention": lambda: (TutorialAttention(Q, K, max_len=9), pair()),
    "TutorialStep": lambda: (
        TutorialStep(
            TutorialAttention(3 + Q, K, max_len=9), input_dim=3, state_dim=Q, context_dim=K
        ),
        decoder_state(),
    ),
}


def first(result):
    return result if isinstance(result, torch.Tensor) else result[0]


def error(ours: torch.Tensor, exact: torch.Tensor) -> float:
    """Relative to the whole."""
    return ((ours.double() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", PRESETS)
def test_presets_in_half_precision_are_near_double(name, dtype):
    torch.manual_seed(3)
    exact = build(name)
    half = copy.deepcopy(exact).to(dtype)
    given = inputs(name)
    out = half(*(x.to(dtype) for x in given)).out
    assert out.dtype == dtype
    if name in CHOOSE:
        assert out.isfinite().all()
    else:
        assert error(out, exact(*given).out) < 12 * torch.finfo(dtype).eps


@pytest.mark.parametrize("name", PRESETS)
def test_presets_under_autocast_are_near_double_and_learn(name):
    torch.manual_seed(3)
    exact = build(name)
    single = build(name, torch.float32)
    given = inputs(name)
    query, context = (x.float().requires_grad_() for x in given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = single(query, context).out
    if name in CHOOSE:
        assert out.isfinite().all()
    else:
        assert error(out, exact(*given).out) < 12 * torch.finfo(torch.bfloat16).eps
    out.float().square().sum().backward()
    for tensor in (query, context, *single.parameters()):
        assert tensor.grad is None or tensor.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALVES])
@pytest.mark.parametrize("name", NAMED)
def test_named_constructors_serve_every_precision(name, dtype):
    torch.manual_seed(3)
    module, given = NAMED[name]()
    exact = copy.deepcopy(module).double().eval()
    expected = first(exact(*(x.double() for x in given)))
    module = module.to(dtype).eval()
    given = [x.to(dtype).requires_grad_() for x in given]
    out = first(module(*given))
    assert out.dtype == dtype
    if name != "HardAttention":
        assert error(out, expected) < 12 * torch.finfo(dtype).eps
    out.float().square().sum().backward()
    for tensor in (*given, *module.parameters()):
        assert tensor.grad is None or tensor.grad.isfinite().all()


@pytest.mark.parametrize("name", [n for n in NAMED if n.endswith("Attention")])
def test_every_named_attention_takes_a_kernel(name):
    kind = getattr(catalogue, name)
    dims = {"dim": 16, "query_dim": 16, "key_dim": 16, "grid": (2, 3)}
    needed = {n: dims[n] for n in inspect.signature(kind).parameters if n in dims}
    assert kind(**needed, kernel="dense").kernel == "dense"
    with pytest.raises(ValueError, match="unknown kernel 'flash'"):
        kind(**needed, kernel="flash")


def test_every_constructor_is_tested_here():
    modules = {
        name
        for name in catalogue.__all__
        if isinstance(getattr(catalogue, name), type)
        and issubclass(getattr(catalogue, name), torch.nn.Module)
    }
    assert modules - {"ReinforceLoss", "RunningBaseline"} == set(NAMED)
