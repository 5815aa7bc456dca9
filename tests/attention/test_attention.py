"""The equation itself: what it refuses, how parts are chosen, and where it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from perceiver.attention import AXES, Attention
from perceiver.attention.masks import broadcast_mask
from perceiver.attention.normalisers import Entmax
from perceiver.attention.patterns import Lengths, Window
from perceiver.attention.scores.pairwise import Dot


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"score": "addtive"}, "unknown score 'addtive': did you mean 'additive'"),
        ({"normaliser": "sparsmax"}, "unknown normaliser 'sparsmax': did you mean 'sparsemax'"),
        ({"position": "ropee"}, "unknown position 'ropee': did you mean 'rope'"),
        ({"pattern": "xyz"}, "unknown pattern 'xyz': choose one of block"),
        ({"heads": "qvk"}, "unknown heads 'qvk': did you mean 'qkv'"),
        ({"options": {"entmx": {}}}, "options are given for 'entmx'.*did you mean 'entmax'"),
        ({"options": {"entmax": {"alhpa": 2.0}}}, "normaliser=entmax has no option 'alhpa'"),
        ({"options": {"none": {"x": 1}}}, "position=none has no option 'x': it has none"),
        ({"score": "location"}, r"score=location needs max_len: set options.location.max_len"),
        ({"normaliser": "sum"}, "normaliser=sum .*use score=feature_dot"),
        ({"num_heads": 0}, "num_heads=0 must be at least 1 and a whole number"),
        ({"qk_dim": -8}, "qk_dim=-8 must be at least 1"),
        ({"out_dim": 0}, "out_dim=0 must be at least 1"),
        ({"options": {"qkv": {"num_registers": -1}}}, "num_registers=-1 must be 0 or more"),
        ({"score": "additive", "options": {"additive": {"hidden_dim": 0}}}, "hidden_dim=0 must be"),
        (
            {"score": "location_aware", "options": {"location_aware": {"num_filters": 0}}},
            "num_filters=0 must be at least 1",
        ),
        (
            {"pattern": "luong_local", "options": {"luong_local": {"hidden_dim": -3}}},
            "hidden_dim=-3 must be at least 1",
        ),
        ({"softcap": -1.0}, "softcap=-1.0 must be positive"),
        ({"score": "location_aware", "position": "alibi"}, "location_aware .*position=none"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(options, said):
    with pytest.raises(ValueError, match=said) as error:
        Attention(8, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("query", "context", "mask", "error", "said"),
    [
        ((2, 5, 8), (2, 7, 6), torch.zeros(2, 7), TypeError, "mask is torch.float32; give a bool"),
        ((2, 5, 8), (2, 7, 6), torch.ones(7).bool(), ValueError, r"mask has shape \(7,\)"),
        ((2, 5, 8), (2, 7, 6), torch.ones(2, 5).bool(), ValueError, r"which does not fit batch=2"),
        ((2, 5, 8), (2, 7, 6), torch.ones(5, 7).bool(), ValueError, r"\(q, k\).*is mask\[None\]"),
        ((5, 8), (2, 7, 6), None, ValueError, r"query has shape \(5, 8\); expected \(batch, len"),
        ((2, 5, 9), (2, 7, 6), None, ValueError, r"expected \(batch, length, 8\)"),
        ((2, 5, 8), (2, 7, 8), None, ValueError, r"context has shape .* length, 6\)"),
        ((2, 5, 8), (3, 7, 6), None, ValueError, "query has 2 examples and context 3"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(query, context, mask, error, said):
    attention = Attention(8, 6)
    with pytest.raises(error, match=said):
        attention(torch.randn(query), torch.randn(context), mask=mask)


@pytest.mark.parametrize("of", ["query", "context"])
def test_whole_numbers_are_no_input(of):
    tensors = {"query": torch.randn(2, 5, 8), "context": torch.randn(2, 7, 6)}
    tensors[of] = tensors[of].long()
    with pytest.raises(ValueError, match=rf"{of} is torch\.int64; expected real numbers"):
        Attention(8, 6)(**tensors)


@pytest.mark.parametrize("kernel", ["auto", "dense", "chunked"])
def test_nan_in_masked_elements_is_explained(kernel):
    attention = Attention(8, 6, kernel=kernel)
    query, context = torch.randn(2, 5, 8), torch.randn(2, 7, 6)
    keep = torch.ones(2, 7, dtype=torch.bool)
    keep[1, 3] = False
    context[1, 3] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite numbers in masked elements"):
        attention(query, context, mask=keep)
    context[1, 3], context[0, 0] = 0.0, torch.nan
    assert attention(query, context, mask=keep).out[1].isfinite().all()


def test_nan_past_the_lengths_of_a_pattern_is_explained():
    context = torch.randn(2, 7, 6)
    context[1, 3:] = torch.nan
    attention = Attention(8, 6, pattern=Window(9, 9))
    with pytest.raises(ValueError, match="NaN or infinite numbers in masked elements"):
        attention(torch.randn(2, 5, 8), context, mask=Lengths(torch.tensor([7, 3])))
    context[1, 5:] = 0.0  # what is left is attended to: the caller's own NaN
    out = attention(torch.randn(2, 5, 8), context, mask=Lengths(torch.tensor([7, 5]))).out
    assert out[0].isfinite().all()


@pytest.mark.parametrize(
    "shape", [(2, 7), (1, 7), (2, 5, 7), (1, 5, 7), (2, 3, 5, 7), (2, 1, 1, 7)]
)
def test_masks_of_two_to_four_dimensions_broadcast(shape):
    mask = torch.rand(shape) > 0.5
    wide = broadcast_mask(mask, batch=2, heads=3, queries=5, keys=7).expand(2, 3, 5, 7)
    full = {2: mask[:, None, None], 3: mask[:, None] if mask.dim() == 3 else None, 4: mask}
    assert (wide == full[mask.dim()].expand(2, 3, 5, 7)).all()


def test_members_may_be_given_as_factories_and_functions():
    x = torch.randn(2, 5, 8)
    torch.manual_seed(1)
    named = Attention(
        8,
        normaliser="entmax",
        options={"entmax": {"alpha": 1.3}, "dot": {"scale": 0.3}},
    )
    torch.manual_seed(1)
    given = Attention(8, score=partial(Dot, scale=0.3), normaliser=partial(Entmax, alpha=1.3))
    assert (named(x).out == given(x).out).all()

    def mean(scores, keep):
        return torch.ones_like(scores) / scores.shape[-1]

    averaged = Attention(8, normaliser=mean)
    expected = averaged.heads.to_out(averaged.heads.to_value(x).mean(1, keepdim=True))
    torch.testing.assert_close(averaged(x).out, expected.expand(-1, 5, -1))


def test_options_of_members_that_are_not_chosen_are_left_alone():
    attention = Attention(8, normaliser="sparsemax", options={"softmax": {"sink": "learned"}})
    assert not list(attention.normaliser.parameters())


def test_each_layer_built_by_a_partial_has_its_own_parameters():
    factory = partial(Attention, score="general", num_heads=2)
    first, second = factory(query_dim=8, key_dim=6), factory(query_dim=8, key_dim=6)
    shared = {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}
    assert not shared


ALONE = """
import pkgutil, sys, torch

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(name)

# What torch itself loads is torch's; triton comes with it where there is a GPU.
allowed = {name.partition(".")[0] for name in sys.modules} | set(sys.stdlib_module_names)
allowed |= {"perceiver", "triton"}
assert "jaxtyping" not in allowed and "lightning" not in allowed
sys.meta_path.insert(0, Refusing())

import perceiver.attention
for module in pkgutil.walk_packages(perceiver.attention.__path__, "perceiver.attention."):
    if ".triton." not in module.name:
        __import__(module.name)

from perceiver.attention import AXES, Attention, BahdanauAttention, Context
from perceiver.attention.memory import DNCMemory
from perceiver.types import Segment

query, context = torch.randn(2, 5, 8), torch.randn(2, 7, 6)
assert Attention(8, 6, num_heads=2)(query, context).out.shape == (2, 5, 8)
assert Attention(8, 6)(query, Context([Segment(context)])).out.shape == (2, 5, 8)
assert BahdanauAttention(8, 6)(query, context).out.shape == (2, 5, 6)
memory = DNCMemory(4)
memory.step(torch.randn(2, 4), memory.initial(2, torch.zeros(1)))
"""


def test_the_package_needs_torch_alone():
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
    subprocess.run(
        [sys.executable, "-c", ALONE],
        check=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": path},
    )


def test_autocast_keeps_normalisers_in_single_precision():
    attention = Attention(8, normaliser="sparsemax")
    x = torch.randn(2, 5, 8)
    exact = attention(x, need_weights=True).weights
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights = attention(x, need_weights=True).weights
    # Scores have bfloat16's eight bits.
    torch.testing.assert_close(weights.float(), exact, rtol=0, atol=0.03)


def run_alone(script: str, *arguments: str) -> None:
    """A script beside this file in a process of its own: shape checks cannot be traced."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=590,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["export", "compile"])
def test_every_preset_can_be_traced(way):
    run_alone("traced.py", way)


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one_with_every_preset():
    run_alone("distributed.py", "ddp,fsdp")


def test_no_parameter_is_a_scalar():
    """FSDP shards none."""
    options = {"dot": {"scale": "learned"}, "qkv": {"qk_norm": "l2"}}
    variants = [Attention(8, options={name: options[name]}) for name in options]
    variants.append(Attention(8, score="cosine", options={"cosine": {"scale": "learned"}}))
    for attention in variants:
        assert all(parameter.dim() > 0 for parameter in attention.parameters())


@pytest.mark.parametrize("normaliser", AXES["normaliser"])
@pytest.mark.parametrize("need_weights", [False, True])
def test_without_any_keys_the_result_is_zero(normaliser, need_weights):
    score = "feature_dot" if normaliser == "sum" else "dot"
    attention = Attention(8, 6, num_heads=2, score=score, normaliser=normaliser)
    torch.nn.init.ones_(attention.heads.to_out.bias)
    query = torch.randn(2, 5, 8, requires_grad=True)
    result = attention(query, torch.randn(2, 0, 6), need_weights=need_weights)
    assert (result.out == 0).all()
    result.out.sum().backward()
    assert query.grad is None or (query.grad == 0).all()
    if need_weights:
        assert result.weights.shape == (2, 2, 5, 0)
    assert attention(query[:, :0], torch.randn(2, 0, 6)).out.shape == (2, 0, 8)
