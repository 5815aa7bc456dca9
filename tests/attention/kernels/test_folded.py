"""The folded and separable kernels against the dense one, over byte arrays of several segments."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from perceiver.attention import Attention
from perceiver.attention.context import Context, scale
from perceiver.models import PerceiverEncoder
from perceiver.types import ByteArray, Segment

WIDTH = 13


def segments(*, batch=3, dtype=torch.float64, learned=True):
    """A modality of no, one, two and three axes; the second example has none of them."""
    torch.manual_seed(5)

    def random(*shape):
        return torch.randn(*shape, dtype=dtype).requires_grad_(learned)

    def mask(tokens):
        keep = torch.rand(batch, tokens) > 0.3
        keep[1] = False
        return keep

    return {
        "audio": Segment(random(batch, 11, 4), (random(11, 6),), random(3), mask(11)),
        "image": Segment(random(batch, 35, 3), (random(5, 2), random(7, 4)), random(4), mask(35)),
        "text": Segment(random(batch, 6, WIDTH), mask=mask(6)),
        "video": Segment(
            random(batch, 30, 2), (random(2, 3), random(3, 2), random(5, 5)), random(1), mask(30)
        ),
    }


def leaves(parts):
    return [
        tensor
        for part in parts.values()
        for tensor in (part.content, *part.axes, part.constant)
        if tensor is not None
    ]


HEADS = {
    "plain": {},
    "one head": {"num_heads": 1},
    "grouped": {"options": {"qkv": {"num_kv_heads": 2}}},
    "gated": {"options": {"qkv": {"is_gated": True}}},
    "sink": {"options": {"softmax": {"sink": "learned"}}},
    "differential": {"heads": "differential"},
    "general": {"score": "general"},
    "no bias": {"bias": False},
    "values of another width": {"v_dim": 8},
}


def encoder(name, **options):
    torch.manual_seed(3)
    chosen = {"num_heads": 4, "qk_dim": 16} | HEADS[name]
    model = PerceiverEncoder(
        input_dim=WIDTH,
        num_latents=5,
        latent_dim=16,
        num_blocks=3,
        num_layers=1,
        num_cross_attends=3,
        cross_attention=partial(Attention, **chosen),
        latent_attention=partial(Attention, num_heads=2),
        **options,
    ).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


def run(model, kernel, parts):
    for cross in model.cross_attends:
        cross.attention.kernel = kernel
    model.zero_grad()
    for leaf in leaves(parts):
        leaf.grad = None
    latents = model(ByteArray(parts))
    latents.backward(torch.linspace(-1, 1, latents.numel(), dtype=latents.dtype).view_as(latents))
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return latents.detach(), gradients | {i: leaf.grad for i, leaf in enumerate(leaves(parts))}


@pytest.mark.parametrize("kernel", ["folded", "separable"])
@pytest.mark.parametrize("name", HEADS)
def test_folding_changes_neither_results_nor_gradients(name, kernel):
    model, parts = encoder(name), segments()
    expected, expected_gradients = run(model, "dense", parts)
    ours, gradients = run(model, kernel, parts)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)
    for what, gradient in expected_gradients.items():
        torch.testing.assert_close(
            gradients[what], gradient, rtol=1e-8, atol=1e-8, msg=lambda m, what=what: f"{what}: {m}"
        )


@pytest.mark.parametrize("kernel", ["folded", "separable"])
def test_every_parameter_has_a_gradient_as_distributed_training_demands(kernel):
    _, gradients = run(encoder("plain"), kernel, segments())
    assert all(gradient is not None for gradient in gradients.values())


def test_one_example_alone_reads_what_it_reads_in_a_batch():
    model, parts = encoder("plain"), segments(learned=False)
    for cross in model.cross_attends:
        cross.attention.kernel = "separable"
    alone = {
        name: Segment(p.content[2:], p.axes, p.constant, p.mask[2:]) for name, p in parts.items()
    }
    torch.testing.assert_close(model(ByteArray(parts))[2:], model(ByteArray(alone)))


def test_half_precision_reads_about_the_same():
    parts = segments(learned=False)
    model = encoder("plain")
    for cross in model.cross_attends:
        cross.attention.kernel = "separable"
    expected = model(ByteArray(parts))
    half = {
        name: Segment(
            p.content.bfloat16(),
            tuple(code.bfloat16() for code in p.axes),
            None if p.constant is None else p.constant.bfloat16(),
            p.mask,
        )
        for name, p in parts.items()
    }
    ours = model.bfloat16()(ByteArray(half))
    assert ours.dtype is torch.bfloat16
    # Three blocks of layers whose products round to eight bits.
    torch.testing.assert_close(ours.double(), expected, rtol=0.1, atol=0.3)


def test_scaling_a_segment_is_a_layer_norm_of_its_dense_tokens():
    for segment in segments().values():
        scaled = scale(segment, 1e-5, None)
        dense = segment.dense()
        normal = nn.functional.layer_norm(dense, (WIDTH,))
        rho, shift = scaled.rho[..., None], scaled.content[..., -3:-2]
        torch.testing.assert_close(rho * dense + shift, normal, rtol=1e-12, atol=1e-12)
        width = segment.content.shape[-1]
        torch.testing.assert_close(scaled.content[..., :width], rho * segment.content)


def test_masked_numbers_are_never_looked_at():
    parts = segments(learned=False)
    model = encoder("plain")
    for cross in model.cross_attends:
        cross.attention.kernel = "separable"
    expected = model(ByteArray(parts))
    spoilt = {}
    for name, part in parts.items():
        content = part.content.masked_fill(~part.mask[..., None], float("nan"))
        spoilt[name] = replace(part, content=content)
    ours = model(ByteArray(spoilt))
    torch.testing.assert_close(ours, expected)
    ours.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_tensor_folds_too():
    torch.manual_seed(0)
    attention = Attention(8, 6, num_heads=2, qk_dim=8).double()
    query, context = torch.randn(2, 3, 8).double(), torch.randn(2, 17, 6).double()
    mask = torch.rand(2, 17) > 0.3
    expected = attention(query, context, mask=mask).out
    attention.kernel = "folded"
    torch.testing.assert_close(attention(query, context, mask=mask).out, expected)


def test_shared_cross_attends_project_and_normalise_the_inputs_once(monkeypatch):
    model, parts = encoder("plain"), segments(learned=False)
    calls = []
    for cross in model.cross_attends:
        cross.attention.kernel = "sdpa"
        heads = cross.attention.heads
        monkeypatch.setattr(
            heads, "keys_and_values", lambda x, own=heads.keys_and_values: calls.append(1) or own(x)
        )
    model(ByteArray(parts))
    assert len(calls) == 2  # three cross-attends of two sets of weights


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"score": "cosine"}, "score: Cosine"),
        ({"normaliser": "sparsemax"}, "normaliser: Sparsemax"),
        ({"position": "alibi"}, "position: ALiBi"),
        ({"pattern": "causal"}, "pattern: Causal"),
        ({"options": {"qkv": {"is_talking": True}}}, "heads: "),
        ({"softcap": 3.0}, "score: a softcap"),
        ({"dropout": 0.1}, "dropout: "),
    ],
)
def test_what_cannot_fold_is_refused_by_axis(options, said):
    with pytest.raises(ValueError, match=f"kernel=folded refuses this attention; {said}"):
        Attention(8, 8, num_heads=2, kernel="folded", **options)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"need_weights": True}, "weights: "),
        ({"mask": torch.ones(2, 3, 7, dtype=torch.bool)}, "mask: "),
    ],
)
def test_calls_that_cannot_fold_are_refused(call, said):
    attention = Attention(8, 8, num_heads=2, kernel="folded")
    with pytest.raises(ValueError, match=f"kernel=folded refuses this attention; {said}"):
        attention(torch.randn(2, 3, 8), torch.randn(2, 7, 8), **call)


def test_separable_wants_segments():
    attention = Attention(8, 8, kernel="separable")
    with pytest.raises(ValueError, match="use kernel=folded"):
        attention(torch.randn(2, 3, 8), torch.randn(2, 7, 8))


def test_a_context_with_a_second_mask_is_refused():
    context = Context([Segment(torch.randn(2, 7, 8))])
    with pytest.raises(ValueError, match="brings its own mask"):
        Attention(8, 8)(torch.randn(2, 3, 8), context, mask=torch.ones(2, 7, dtype=torch.bool))
