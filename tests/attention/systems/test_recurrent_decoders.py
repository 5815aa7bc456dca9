"""The named systems: the specification's golden table, the papers' steps, constructors."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from perceiver.attention import (
    Attention,
    BahdanauAttention,
    BahdanauStep,
    CosineAttention,
    DotAttention,
    HardAttention,
    LinearAttention,
    LocationAwareAttention,
    LuongAttention,
    LuongStep,
    MultiHeadAttention,
    SingleHeadAttention,
    TutorialAttention,
    TutorialStep,
    reinforce_loss,
)
from perceiver.attention.normalisers import softmax


def assert_equal(ours, expected):
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-9)


def example(queries=5, keys=7, query_dim=6, key_dim=6):
    x = torch.randn(2, queries, query_dim, dtype=torch.float64)
    context = torch.randn(2, keys, key_dim, dtype=torch.float64)
    keep = torch.arange(keys) < torch.tensor([keys, 3])[:, None]
    return x, context, keep


# Scores of "I love you" (columns) for "je t'aime" (rows); pads score .5 each.
GOLDEN = torch.tensor([[0.63, -3.2, -2.5], [-1.5, -3.9, 0.57], [-2.8, 0.64, -3.2]])
GOLDEN_ROWS = torch.tensor([[0.94, 0.02, 0.04], [0.11, 0.01, 0.88], [0.03, 0.95, 0.02]])


def test_the_golden_table_needs_its_pads_masked():
    scores = torch.full((1, 1, 3, 100), 0.5)
    scores[0, 0, :, :3] = GOLDEN
    keep = (torch.arange(100) < 3)[None, None, None]
    weights = softmax(scores, keep)[0, 0]
    torch.testing.assert_close(weights[:, :3], GOLDEN_ROWS, rtol=0, atol=0.005)
    assert (weights[:, 3:] == 0).all()
    assert weights.argmax(-1).tolist() == [0, 2, 1]
    assert softmax(scores)[0, 0, :, :3].max() < 0.02


def test_the_golden_table_comes_out_of_unscaled_dot_attention():
    attention = DotAttention(100)
    keys = torch.eye(100)[None]
    queries = torch.full((1, 3, 100), 0.5)
    queries[0, :, :3] = GOLDEN
    result = attention(queries, keys, mask=torch.arange(100)[None] < 3, need_weights=True)
    torch.testing.assert_close(result.weights[0, 0, :, :3], GOLDEN_ROWS, rtol=0, atol=0.005)


def test_encoder_decoder_dot_is_a_softmax_over_columns():
    """W = colsoftmax(Hᵀ S), C = H W, with states as columns."""
    x, context, keep = example()
    result = DotAttention(6).double()(x, context, mask=keep, need_weights=True)
    for b, length in enumerate((7, 3)):
        hidden, states = context[b, :length].T, x[b].T
        weights = (hidden.T @ states).softmax(0)
        assert_equal(result.weights[b, 0, :, :length], weights.T)
        assert_equal(result.out[b], (hidden @ weights).T)


def test_encoder_decoder_qkv_has_three_matrices():
    x, context, keep = example(key_dim=4)
    attention = SingleHeadAttention(6, 4, qk_dim=3, v_dim=5).double()
    assert sum(p.numel() for p in attention.parameters()) == 3 * 6 + 3 * 4 + 5 * 4
    heads = attention.heads
    out = attention(x, context, mask=keep).out
    for b, length in enumerate((7, 3)):
        hidden, states = context[b, :length].T, x[b].T
        keys, queries = heads.to_key.weight @ hidden, heads.to_query.weight @ states
        weights = (keys.T @ queries / math.sqrt(3)).softmax(0)
        assert_equal(out[b], (heads.to_value.weight @ hidden @ weights).T)


def test_encoder_only_attention_is_the_same_without_a_context():
    x, _, _ = example()
    assert_equal(DotAttention(6)(x).out, (x @ x.mT).softmax(-1) @ x)
    attention = SingleHeadAttention(6).double()
    assert_equal(attention(x).out, attention(x, x).out)


def test_the_tutorials_layer_is_fully_connected_and_unmasked_by_default():
    x, context, keep = example(key_dim=4)
    attention = TutorialAttention(6, 4, max_len=7).double()
    torch.nn.init.normal_(attention.score.to_score.bias)
    layer = attention.score.to_score
    weights = F.softmax(layer(x), -1)
    result = attention(x, context, need_weights=True)
    assert_equal(result.weights[:, 0], weights)
    assert_equal(result.out, weights @ context)
    masked = F.softmax(layer(x).masked_fill(~keep[:, None], -math.inf), -1)
    assert_equal(attention(x, context, mask=keep).out, masked @ context)


def test_bahdanau_is_a_small_network_over_annotations():
    x, context, keep = example(key_dim=4)
    attention = BahdanauAttention(query_dim=6, key_dim=4, hidden_dim=3).double()
    assert sum(p.numel() for p in attention.parameters()) == 3 * 6 + 3 * 4 + 3
    score = attention.score
    result = attention(x, context, mask=keep, need_weights=True)
    for b, length in enumerate((7, 3)):
        for i in range(5):
            energies = torch.stack(
                [
                    score.to_score.weight[0]
                    @ torch.tanh(score.to_query.weight @ x[b, i] + score.to_key.weight @ h)
                    for h in context[b, :length]
                ]
            )
            assert_equal(result.out[b, i], energies.softmax(0) @ context[b, :length])


@pytest.mark.parametrize("score", ["dot", "general", "concat", "location"])
def test_luongs_scores_are_those_of_equation_8(score):
    key_dim = 6 if score == "dot" else 4
    x, context, keep = example(key_dim=key_dim)
    attention = LuongAttention(6, key_dim, score=score, hidden_dim=3, max_len=11).double()
    module = attention.score

    def compare(h, s, place):
        if score == "dot":
            return h @ s
        if score == "general":
            return h @ module.weight @ s
        if score == "location":
            return (module.to_score.weight @ h)[place]
        joint = torch.cat([module.to_query.weight, module.to_key.weight], 1)
        return module.to_score.weight[0] @ torch.tanh(joint @ torch.cat([h, s]))

    out = attention(x, context, mask=keep).out
    for b, length in enumerate((7, 3)):
        for t in range(5):
            energies = torch.stack([compare(x[b, t], context[b, s], s) for s in range(length)])
            assert_equal(out[b, t], energies.softmax(0) @ context[b, :length])


def test_luongs_step_puts_the_context_first():
    h, annotations, keep = example(key_dim=4)
    step = LuongStep(LuongAttention(6, 4), state_dim=6, context_dim=4).double()
    result = step(h[:, 0], annotations, keep)
    context = step.attention(h[:, :1], annotations, mask=keep).out[:, 0]
    assert_equal(result.context, context)
    expected = torch.tanh(torch.cat([context, h[:, 0]], -1) @ step.to_state.weight.T)
    assert_equal(result.state, expected)


def test_bahdanaus_step_is_not_torchs_gru():
    """A.1.2 and A.2.2, equation by equation."""
    annotations = torch.randn(2, 7, 8).double()
    attention = BahdanauAttention(4, 8, hidden_dim=3)
    step = BahdanauStep(attention, input_dim=5, state_dim=4, context_dim=8).double()
    torch.nn.init.normal_(step.from_input.bias)
    state, embedding = torch.randn(2, 4).double(), torch.randn(2, 5).double()
    result = step(embedding, state, annotations)
    c = attention(state[:, None], annotations).out[:, 0]
    w = step.from_input.weight.chunk(3)
    bias = step.from_input.bias.chunk(3)
    into = step.from_context.weight.chunk(3)
    recurrent = step.gates_from_state.weight.chunk(2)
    r = torch.sigmoid(embedding @ w[0].T + bias[0] + state @ recurrent[0].T + c @ into[0].T)
    z = torch.sigmoid(embedding @ w[1].T + bias[1] + state @ recurrent[1].T + c @ into[1].T)
    proposal = torch.tanh(
        embedding @ w[2].T + bias[2] + (r * state) @ step.from_reset_state.weight.T + c @ into[2].T
    )
    assert_equal(result.state, (1 - z) * state + z * proposal)
    first = torch.tanh(annotations[:, 0, 4:] @ step.to_start.weight.T)
    assert_equal(step.start(annotations), first)


def test_the_tutorials_step_combines_then_runs_a_gru():
    annotations = torch.randn(2, 7, 4).double()
    attention = TutorialAttention(5 + 6, 4, max_len=7)
    step = TutorialStep(attention, input_dim=5, state_dim=6, context_dim=4).double()
    embedding, state = torch.randn(2, 5).double(), torch.randn(2, 6).double()
    result = step(embedding, state, annotations)
    weights = attention.score.to_score(torch.cat([embedding, state], -1)).softmax(-1)
    context = torch.einsum("bk,bkc->bc", weights, annotations)
    fed = F.relu(step.combine(torch.cat([embedding, context], -1)))
    assert_equal(result.state, step.gru(fed, state))
    assert_equal(result.weights[:, 0, 0], weights)


def test_location_aware_steps_are_the_same_as_all_queries_at_once():
    x, context, keep = example(key_dim=4)
    attention = LocationAwareAttention(6, 4, 3, num_filters=2, filter_size=3).double()
    together = attention(x, context, mask=keep, need_weights=True)
    state = None
    for t in range(5):
        read, weights, state = attention.step(x[:, t], context, state, mask=keep)
        assert_equal(read, together.out[:, t])
        assert_equal(weights, together.weights[:, 0, t])


@pytest.mark.parametrize("mode", ["reinforce", "gumbel_st", "argmax"])
def test_hard_attention_reads_one_annotation(mode):
    x, context, keep = example(key_dim=4)
    attention = HardAttention(6, 4, 3, mode=mode).double().eval()
    out = attention(x, context, mask=keep).out
    soft = BahdanauAttention(6, 4, 3).double()
    soft.load_state_dict(attention.state_dict())
    best = soft(x, context, mask=keep, need_weights=True).weights[:, 0].argmax(-1)
    assert_equal(out, context.gather(1, best[..., None].expand(-1, -1, 4)))


def test_reinforce_moves_attention_to_the_key_that_pays():
    torch.manual_seed(0)
    attention = HardAttention(3, 3, 3).train()
    optimizer = torch.optim.Adam(attention.parameters(), lr=0.05)
    context = torch.eye(3).expand(64, 3, 3)
    query = torch.ones(64, 1, 3)
    for _ in range(60):
        result = attention(query, context)
        reward = result.out[:, 0, 1].detach()
        loss = reinforce_loss(reward, result.aux.log_prob, result.aux.entropy, baseline=0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert attention.eval()(query, context).out[0, 0].tolist() == [0.0, 1.0, 0.0]


def test_linear_attention_is_a_ratio_of_sums():
    x, context, keep = example()
    attention = LinearAttention(6, num_heads=2).double()
    query, key, value = attention.heads.project(x, context)
    phi = lambda z: F.elu(z) + 1  # noqa: E731
    read = torch.zeros(2, 2, 5, 3).double()
    for b, length in enumerate((7, 3)):
        for h in range(2):
            for i in range(5):
                weights = torch.stack([phi(query[b, h, i]) @ phi(k) for k in key[b, h, :length]])
                read[b, h, i] = weights @ value[b, h, :length] / weights.sum()
    expected = attention.heads.to_out(read.transpose(1, 2).flatten(-2))
    assert_equal(attention(x, context, mask=keep).out, expected)


def test_fast_weights_sum_outer_products():
    """W_t = W_{t−1} + v_t φ(k_t)ᵀ, y_t = W_t φ(q_t), after the update."""
    attention = Attention(4, score="feature_dot", normaliser="none", pattern="causal").double()
    x = torch.randn(1, 7, 4).double()
    query, key, value = (z[0, 0] for z in attention.heads.project(x, x))
    memory, reads = torch.zeros(4, 4).double(), []
    for t in range(7):
        memory = memory + torch.outer(value[t], F.elu(key[t]) + 1)
        reads.append(memory @ (F.elu(query[t]) + 1))
    assert_equal(attention(x).out[0], attention.heads.to_out(torch.stack(reads)))


def test_cosine_attention_is_bounded_by_its_strength():
    attention = CosineAttention(6, num_heads=2, scale=3.0).double()
    x, context, _ = example()
    weights = attention(100 * x, context, need_weights=True).weights
    ratio = weights.amax(-1) / weights.amin(-1)
    assert ratio.max() < math.exp(6.0)
    assert ratio.max() > math.exp(2.0)


def test_a_softcap_bends_scores_before_the_mask():
    attention = Attention(6, softcap=2.0).double()
    x, context, keep = example()
    query, key, value = attention.heads.project(x, context)
    scores = 2.0 * torch.tanh(query @ key.mT / math.sqrt(6) / 2.0)
    scores = scores.masked_fill(~keep[:, None, None], -math.inf)
    expected = attention.heads.to_out((scores.softmax(-1) @ value)[:, 0])
    assert_equal(attention(x, context, mask=keep).out, expected)


def test_one_head_is_the_perceivers_cross_attention():
    torch.manual_seed(2)
    named = MultiHeadAttention(6, 4, num_heads=1)
    torch.manual_seed(2)
    plain = Attention(6, 4)
    x, context, keep = (t.float() if t.is_floating_point() else t for t in example(key_dim=4))
    assert (named(x, context, mask=keep).out == plain(x, context, mask=keep).out).all()
