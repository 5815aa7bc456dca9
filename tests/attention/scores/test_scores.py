"""Scores against loops over the papers' equations and against other implementations."""

from __future__ import annotations

import math
import os

import pytest
import torch
import torch.nn.functional as F

from perceiver.attention.catalogue import AXES
from perceiver.attention.normalisers import Softmax
from perceiver.attention.scores.location import Location, LocationAware
from perceiver.attention.scores.pairwise import (
    Additive,
    Cosine,
    Dot,
    DotProductScore,
    FeatureDot,
    General,
    NegL2,
)


def heads(*lengths, dim=5, h=3):
    return [torch.randn(2, h, length, dim, dtype=torch.float64) for length in lengths]


def pairwise(function, query, key):
    """function(q, k) of every pair of vectors, in a loop."""
    b, h, rows, columns = *query.shape[:3], key.shape[2]
    scores = torch.zeros(b, h, rows, columns, dtype=query.dtype)
    for x in range(b):
        for y in range(h):
            for i in range(rows):
                for j in range(columns):
                    scores[x, y, i, j] = function(query[x, y, i], key[x, y, j])
    return scores


def assert_equal(ours, expected):
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("scale", "factor"), [(None, 5**-0.5), (1.0, 1.0), (0.3, 0.3)])
def test_dot_is_the_scaled_product(scale, factor):
    query, key = heads(7, 11)
    expected = pairwise(
        lambda q, k: factor * sum(a * b for a, b in zip(q, k, strict=True)), query, key
    )
    assert_equal(Dot(scale=scale)(query, key), expected)


def test_a_learned_scale_starts_at_one_over_the_root_of_the_width():
    query, key = heads(7, 11)
    score = Dot(scale="learned", query_dim=5).double()
    torch.testing.assert_close(score(query, key), Dot()(query, key), rtol=1e-6, atol=1e-6)
    score(query, key).sum().backward()
    assert score.scale.grad.abs() > 0


def test_general_puts_a_matrix_between_query_and_key():
    (query,), (key,) = heads(7), heads(11, dim=3)
    score = General(query_dim=5, key_dim=3).double()
    assert score.weight.shape == (5, 3)
    assert_equal(score(query, key), pairwise(lambda q, k: q @ score.weight @ k, query, key))


@pytest.mark.parametrize("bias", [False, True])
def test_additive_is_a_small_network_of_the_pair(bias):
    (query,), (key,) = heads(7), heads(11, dim=3)
    score = Additive(query_dim=5, key_dim=3, hidden_dim=2, bias=bias).double()
    if bias:
        torch.nn.init.normal_(score.to_key.bias)
    b = score.to_key.bias if bias else 0.0

    def network(q, k):
        hidden = torch.tanh(score.to_query.weight @ q + score.to_key.weight @ k + b)
        return score.to_score.weight[0] @ hidden

    assert_equal(score(query, key), pairwise(network, query, key))


def test_concat_is_additive_with_two_halves_of_one_matrix():
    (query,), (key,) = heads(7), heads(11, dim=3)
    joint, vector = torch.randn(2, 8).double(), torch.randn(2).double()
    score = Additive(query_dim=5, key_dim=3, hidden_dim=2).double()
    score.to_query.weight.data, score.to_key.weight.data = joint[:, :5], joint[:, 5:]
    score.to_score.weight.data = vector[None]
    expected = pairwise(lambda q, k: vector @ torch.tanh(joint @ torch.cat([q, k])), query, key)
    assert_equal(score(query, key), expected)


def test_additive_without_projections_is_that_of_keras(monkeypatch):
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    query, key = (torch.randn(2, length, 5) for length in (7, 11))
    layer = keras.layers.AdditiveAttention(use_scale=True)
    layer.build([query.shape, key.shape, key.shape])
    scale = torch.randn(5)
    layer.set_weights([scale.numpy()])
    score = Additive(query_dim=5, key_dim=5, hidden_dim=5)
    score.to_query.weight.data = score.to_key.weight.data = torch.eye(5)
    score.to_score.weight.data = scale[None]
    expected = torch.as_tensor(layer([query, key], return_attention_scores=True)[1])
    weights = score(query[:, None], key[:, None]).softmax(-1)[:, 0]
    torch.testing.assert_close(weights, expected.detach().cpu(), rtol=0, atol=2e-5)


def test_cosine_is_the_angle_times_the_strength():
    query, key = heads(7, 11)
    expected = 2.5 * F.cosine_similarity(query[..., :, None, :], key[..., None, :, :], dim=-1)
    assert_equal(Cosine(scale=2.5)(query, key), expected)
    score = Cosine(scale="log", num_heads=3).double()
    with torch.no_grad():
        score.log_scale.copy_(torch.tensor([0.3, 2.0, 9.0])[:, None, None])
    strengths = torch.tensor([math.exp(0.3), math.exp(2.0), 100.0]).double()
    torch.testing.assert_close(
        score(query, key), strengths[:, None, None] * expected / 2.5, rtol=1e-6, atol=1e-6
    )


def test_cosine_of_zeros_is_zero_in_every_precision():
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        query = torch.ones(1, 1, 2, 3, dtype=dtype, requires_grad=True)
        key = torch.zeros(1, 1, 4, 3, dtype=dtype, requires_grad=True)
        scores = Cosine(scale=1.0)(query, key)
        assert (scores == 0).all()
        scores.sum().backward()
        assert query.grad.isfinite().all()


@pytest.mark.parametrize("scale", [None, 0.7])
def test_neg_l2_falls_with_the_squared_distance(scale):
    query, key = heads(7, 11)
    factor = 5**-0.5 if scale is None else scale
    expected = pairwise(lambda q, k: -factor * ((q - k) ** 2).sum(), query, key)
    assert_equal(NegL2(scale=scale)(query, key), expected)


def test_feature_dot_compares_positive_features():
    query, key = heads(7, 11)

    def phi(x):
        return torch.where(x > 0, x + 1, x.exp())

    scores = FeatureDot()(query, key)
    assert_equal(scores, pairwise(lambda q, k: phi(q) @ phi(k), query, key))
    assert (scores > 0).all()


FOLDING = [name for name, score in AXES["score"].items() if issubclass(score, DotProductScore)]


@pytest.mark.parametrize("name", FOLDING)
def test_a_folded_score_is_the_dot_product_that_it_says(name):
    query, key = heads(7, 11)
    sizes = {"query_dim": 5, "key_dim": 5} if name == "general" else {}
    score = AXES["score"][name](**sizes).double()
    folded = score.fold(query, key)
    expected = folded.scale * torch.einsum("bhqd,bhkd->bhqk", folded.query, folded.key)
    if folded.key_bias is not None:
        expected = expected + folded.key_bias[..., None, :]
    if folded.query_bias is not None:
        expected = expected + folded.query_bias[..., None]
    assert_equal(score(query, key), expected)


@pytest.mark.parametrize("name", [n for n in AXES["score"] if not n.startswith("location")])
def test_scores_have_the_gradients_of_finite_differences(name):
    sizes = {"query_dim": 3, "key_dim": 3} if name in ("general", "additive") else {}
    score = AXES["score"][name](**sizes).double()
    query, key = (torch.randn(1, 1, n, 3, dtype=torch.float64, requires_grad=True) for n in (2, 3))
    assert torch.autograd.gradcheck(score, (query, key))


def test_half_precision_products_do_not_overflow():
    query = torch.full((1, 1, 1, 64), 40.0, dtype=torch.float16)
    assert Dot()(query, query).isfinite().all()


@pytest.mark.parametrize("bias", [False, True])
def test_location_looks_at_the_query_alone(bias):
    (query,), (key,) = heads(7), heads(11, dim=3)
    score = Location(query_dim=5, max_len=13, bias=bias).double()
    torch.nn.init.normal_(score.to_score.weight)
    if bias:
        torch.nn.init.normal_(score.to_score.bias)
    expected = (query @ score.to_score.weight.t() + (score.to_score.bias if bias else 0))[..., :11]
    assert_equal(score(query, key), expected)
    assert_equal(score(query, 5 * key), expected)


def test_location_refuses_more_keys_than_it_has_rows():
    (query,), (key,) = heads(7), heads(11)
    with pytest.raises(ValueError, match="max_len=10 for 11 keys"):
        Location(query_dim=5, max_len=10)(query.float(), key.float())


def location_aware(**options):
    sizes = {"query_dim": 5, "key_dim": 3, "hidden_dim": 4, "num_filters": 2, "filter_size": 3}
    return LocationAware(**sizes, **options).double()


@pytest.mark.parametrize("initial", ["uniform", "first"])
def test_location_aware_scores_follow_the_previous_weights(initial):
    """Chorowski et al. 2015, eq. 8 and 9, in loops."""
    query, key = torch.randn(2, 1, 4, 5).double(), torch.randn(2, 1, 7, 3).double()
    keep = torch.ones(2, 1, 1, 7, dtype=torch.bool)
    keep[0, ..., 5:] = False
    score = location_aware(initial=initial, sharpening=1.7)
    torch.nn.init.normal_(score.to_location.bias)
    weights = score.weigh(query, key, Softmax(), keep).weights
    filters = score.filters.weight[:, 0]
    for b, length in enumerate((5, 7)):
        previous = [1 / length if j < length else 0.0 for j in range(7)]
        if initial == "first":
            previous = [1.0] + [0.0] * 6
        for t in range(4):
            energies = []
            for j in range(length):
                f = torch.zeros(2).double()
                for o in range(3):
                    if 0 <= j + o - 1 < 7:
                        f = f + filters[:, o] * previous[j + o - 1]
                hidden = score.to_query(query[b, 0, t]) + score.to_key(key[b, 0, j])
                hidden = hidden + score.to_location(f)
                energies.append(1.7 * score.to_score(hidden.tanh())[0])
            row = torch.stack(energies).softmax(0)
            expected = torch.cat([row, torch.zeros(7 - length).double()])
            assert_equal(weights[b, 0, t], expected)
            previous = expected.tolist()


def test_location_aware_scores_are_those_of_tacotron_2():
    module = pytest.importorskip("torchaudio.models.tacotron2")
    theirs = module._Attention(5, 3, 4, 2, 3).double()
    score = location_aware(is_cumulative=True)
    score.to_query.weight.data = theirs.query_layer.weight.data
    score.to_key.weight.data = theirs.memory_layer.weight.data
    score.to_score.weight.data = theirs.v.weight.data
    score.filters.weight.data = theirs.location_layer.location_conv.weight.data
    score.to_location.weight.data = theirs.location_layer.location_dense.weight.data
    key = torch.randn(2, 7, 3).double()
    keep = torch.ones(2, 1, 1, 7, dtype=torch.bool)
    keep[1, ..., 4:] = False
    state = score.start(key[:, None], keep)
    for _ in range(3):
        query = torch.randn(2, 5).double()
        seen = torch.cat([state.previous, state.cumulative], 2)[:, 0]
        _, expected = theirs(query, key, theirs.memory_layer(key), seen, ~keep[:, 0, 0])
        scores = score.step(query[:, None, None], key[:, None], state)
        weights = Softmax()(scores, keep).weights
        assert_equal(weights[:, 0, 0], expected)
        earlier, state = state.cumulative, state.after(weights)
        assert_equal(state.cumulative, earlier + weights)


def test_location_aware_options_are_checked():
    with pytest.raises(ValueError, match="filter_size=4 must be odd"):
        LocationAware(query_dim=5, key_dim=3, filter_size=4)
    with pytest.raises(ValueError, match="initial='last'"):
        LocationAware(query_dim=5, key_dim=3, initial="last")
