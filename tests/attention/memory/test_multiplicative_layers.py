"""The multiplicative layers against loops over their indices."""

import math

import pytest
import torch

from perceiver.attention.memory.multiplicative import (
    FastWeights,
    HyperLinear,
    Multiplicative,
    SigmaPi,
    attention_module,
    fast_weight_step,
)

B, D, J, K = 3, 5, 7, 2


def test_multiplicative_module_is_the_triple_sum(draw, exact):
    layer = Multiplicative(J, K, D).double()
    x, z = draw(B, J), draw(B, K)
    wanted = torch.zeros(B, D, dtype=torch.float64)
    for b in range(B):
        for i in range(D):
            for j in range(J):
                for k in range(K):
                    wanted[b, i] += layer.weight[i, j, k].item() * z[b, k] * x[b, j]
    exact(layer(x, z), wanted)


def test_sigma_pi_is_a_sum_of_products(draw, exact):
    conjuncts = [(0,), (1, 3), (2, 2, 4), ()]
    unit = SigmaPi(D, K, conjuncts=conjuncts).double()
    x = draw(B, 2, D)
    wanted = torch.zeros(B, 2, K, dtype=torch.float64)
    for b in range(B):
        for t in range(2):
            for j in range(K):
                for c, conjunct in enumerate(conjuncts):
                    product = math.prod(x[b, t, i].item() for i in conjunct)
                    wanted[b, t, j] += unit.weight[j, c].item() * product
    exact(unit(x), wanted)
    assert torch.autograd.gradcheck(unit, x.requires_grad_())
    assert not unit.state_dict().keys() - {"weight"}


def test_sigma_pi_unit_computes_parity_which_no_linear_unit_can():
    unit = SigmaPi(2, 1, conjuncts=[(0, 1)])
    unit.weight.data.fill_(-1.0)
    signs = torch.tensor([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
    assert unit(signs).squeeze(-1).tolist() == [-1, 1, 1, -1]


def test_attention_module_is_a_weighted_sum(draw, exact):
    scores, values = draw(B, D), draw(B, D, J)
    wanted = torch.zeros(B, J, dtype=torch.float64)
    for b in range(B):
        total = sum(math.exp(score) for score in scores[b])
        for i in range(D):
            wanted[b] += math.exp(scores[b, i]) / total * values[b, i]
    exact(attention_module(scores, values), wanted)


@pytest.mark.parametrize("bias", [True, False])
def test_hypernetwork_layer_makes_its_weights_from_z(draw, exact, bias):
    layer = HyperLinear(J, D, K, bias=bias).double()
    x, z = draw(B, J), draw(B, K)
    a, offset = layer.to_weight.weight, layer.to_weight.bias
    wanted = torch.zeros(B, D, dtype=torch.float64)
    for b in range(B):
        for i in range(D):
            for j in range(J):
                row = i * J + j
                weight = sum(a[row, k].item() * z[b, k] for k in range(K)) + offset[row].item()
                wanted[b, i] += weight * x[b, j]
            if bias:
                made = sum(layer.to_bias.weight[i, k].item() * z[b, k] for k in range(K))
                wanted[b, i] += made + layer.to_bias.bias[i].item()
    exact(layer(x, z), wanted)
    assert torch.autograd.gradcheck(layer, (x.requires_grad_(), z.requires_grad_()))


def fast_run(draw, rule, steps=6):
    weights = torch.zeros(B, D, J, dtype=torch.float64)
    keys, values, queries = draw(steps, B, J), draw(steps, B, D), draw(steps, B, J)
    rates, outputs = draw(steps, B).sigmoid(), []
    for k, v, q, rate in zip(keys, values, queries, rates, strict=True):
        y, weights = fast_weight_step(weights, k, v, q, rate, rule=rule)
        outputs.append(y)
    return keys, values, queries, rates, torch.stack(outputs), weights


def test_sum_rule_is_causal_linear_attention_without_normaliser(draw, exact):
    keys, values, queries, rates, outputs, _ = fast_run(draw, "sum")
    scores = torch.einsum("tbk,sbk->bts", queries, keys).tril()
    exact(outputs, torch.einsum("bts,sb,sbv->tbv", scores, rates, values))


def test_delta_rule_corrects_what_is_stored_under_a_key(draw, exact):
    keys, values, queries, rates, outputs, final = fast_run(draw, "delta")
    for b in range(B):
        weights = [[0.0] * J for _ in range(D)]
        for t in range(len(keys)):
            stored = [sum(weights[i][j] * keys[t, b, j] for j in range(J)) for i in range(D)]
            for i in range(D):
                for j in range(J):
                    change = rates[t, b] * (values[t, b, i] - stored[i]) * keys[t, b, j]
                    weights[i][j] = weights[i][j] + change
                y = sum(weights[i][j] * queries[t, b, j] for j in range(J))
                exact(outputs[t, b, i], y)
        exact(final[b], torch.tensor(weights, dtype=torch.float64))


def test_delta_rule_replaces_where_the_sum_rule_adds(exact):
    key, rate = torch.eye(J).double()[:1], torch.ones(1).double()
    old, new = torch.full((1, D), 2.0).double(), torch.full((1, D), 5.0).double()
    for rule, wanted in (("sum", old + new), ("delta", new)):
        weights = torch.zeros(1, D, J).double()
        _, weights = fast_weight_step(weights, key, old, key, rate, rule=rule)
        y, _ = fast_weight_step(weights, key, new, key, rate, rule=rule)
        exact(y, wanted)


@pytest.mark.parametrize("rule", ["sum", "delta"])
def test_fast_weights_have_the_right_gradients(draw, rule):
    inputs = [draw(2, 3, 2), draw(2, 2), draw(2, 3), draw(2, 2), draw(2).sigmoid()]
    assert torch.autograd.gradcheck(
        lambda *a: fast_weight_step(*a, rule=rule), [x.requires_grad_() for x in inputs]
    )


@pytest.mark.parametrize("rule", ["sum", "delta"])
def test_fast_weight_memory_programs_itself_from_the_control_vector(draw, exact, rule):
    memory = FastWeights(11, key_dim=J, value_dim=D, rule=rule).double()
    control = draw(B, 11)
    words, weights, after = memory.step(control, memory.initial(B, control))
    assert weights is None
    raw = control @ memory.to_interface.weight.T + memory.to_interface.bias
    key = raw[:, :J] / raw[:, :J].norm(dim=-1, keepdim=True)
    query = raw[:, J + D : -1] / raw[:, J + D : -1].norm(dim=-1, keepdim=True)
    rate = 1 / (1 + (-raw[:, -1:]).exp())
    wanted = (rate * raw[:, J : J + D])[:, :, None] * key[:, None]
    exact(after.weights, wanted)
    exact(words, torch.einsum("bvk,bk->bv", wanted, query))


def test_bad_options_get_one_sentence(draw):
    with pytest.raises(ValueError, match=r"conjunct \(1, 5\) has an index outside \[0, in_dim=5\)"):
        SigmaPi(5, 1, conjuncts=[(1, 5)])
    with pytest.raises(ValueError, match="conjuncts is empty"):
        SigmaPi(5, 1, conjuncts=[])
    with pytest.raises(ValueError, match="rule='hebb' must be one of sum, delta"):
        FastWeights(5, rule="hebb")
    with pytest.raises(ValueError, match="rule='hebb' must be one of sum, delta"):
        fast_weight_step(draw(1, 2, 3), draw(1, 3), draw(1, 2), draw(1, 3), draw(1), rule="hebb")
    with pytest.raises(ValueError, match=r"x has shape \(2, 4\); its last dimension must be 5"):
        SigmaPi(5, 1, conjuncts=[(0, 1)])(torch.zeros(2, 4))
