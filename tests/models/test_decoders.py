"""Decoders: the mean latent, and queries that read the latents."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from perceiver.attention import Attention
from perceiver.models import LearnedQueries, MeanPoolDecoder, QueryDecoder

latents = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(1)).double()


def test_mean_pooling_is_a_linear_layer_on_the_mean_latent():
    decoder = MeanPoolDecoder(latent_dim=5, out_dim=3).double()
    expected = sum(latents[:, n] for n in range(7)) / 7 @ decoder.linear.weight.T
    assert_close(decoder(latents), (expected + decoder.linear.bias)[:, None])


def test_mean_pooling_may_normalise_the_mean():
    decoder = MeanPoolDecoder(latent_dim=5, out_dim=3, norm=True).double()
    mean = latents.mean(1, keepdim=True)
    centred = mean - mean.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    assert_close(decoder(latents), normed @ decoder.linear.weight.T + decoder.linear.bias)


@pytest.mark.parametrize("query_residual", [True, False])
def test_queries_cross_attend_the_latents(query_residual):
    decoder = QueryDecoder(
        latent_dim=5,
        out_dim=3,
        queries=LearnedQueries(num_queries=11, dim=6),
        attention=partial(Attention, num_heads=2, qk_dim=4),
        widening=2,
        query_residual=query_residual,
    ).double()
    block, queries = decoder.cross_attend, decoder.queries.queries
    assert block.mlp[0].out_features == 12
    # An output is what its query alone reads of its example's latents.
    outputs = decoder(latents)
    assert tuple(outputs.shape) == (2, 11, 3)
    for example in range(2):
        for output in (0, 10):
            query = queries[None, output : output + 1]
            read = block.attention(block.norm(query), block.norm_context(latents[[example]])).out
            state = query + read if query_residual else read
            state = state + block.mlp(block.norm_mlp(state))
            assert_close(outputs[example, output], decoder.linear(state)[0, 0])


def test_learned_queries_are_the_same_for_every_example_and_start_small():
    queries = LearnedQueries(num_queries=97, dim=101)
    made = queries(3)  # one batch entry serves all three
    assert tuple(made.shape) == (1, 97, 101)
    assert_close(made[0], queries.queries, rtol=0, atol=0)
    assert queries.queries.abs().max() <= 0.04
    assert queries.queries.std().item() == pytest.approx(0.02 * 0.8796, rel=0.03)


def test_heads_that_do_not_fit_the_latents_are_refused_by_name():
    with pytest.raises(ValueError, match=r"model\.decoder\.attention: num_heads=2 .*qk_dim=5"):
        QueryDecoder(
            latent_dim=5,
            out_dim=3,
            queries=LearnedQueries(num_queries=1, dim=6),
            attention=partial(Attention, num_heads=2),
        )
