"""Normalisers against other implementations, the papers' equations, and their own derivatives."""

from __future__ import annotations

import math

import pytest
import torch

from perceiver.attention import normalisers as n
from perceiver.attention.catalogue import AXES

FUNCTIONS = {
    "softmax": n.softmax,
    "softmax_sink": lambda s, keep=None: n.softmax(s, keep, sink=0.3),
    "sparsemax": n.sparsemax,
    "entmax15": n.entmax,
    "entmax13": lambda s, keep=None: n.entmax(s, keep, alpha=1.3),
    "entmax25": lambda s, keep=None: n.entmax(s, keep, alpha=2.5),
    "sigmoid": n.sigmoid,
    "relu": n.relu,
    "topk": lambda s, keep=None: n.topk(s, keep, k=3),
}
SIMPLEX = ("softmax", "sparsemax", "entmax15", "entmax13", "entmax25", "topk")


def kept_rows(scores, keep):
    """(index, kept scores) of each row of (b, h, q, k)."""
    for index in torch.cartesian_prod(*(torch.arange(size) for size in scores.shape[:3])).tolist():
        row = keep[tuple(index)]
        yield tuple(index), row, scores[tuple(index)][row]


def by_rows(function, scores, keep):
    """A function of one row's kept scores, applied row by row."""
    weights = torch.zeros_like(scores)
    for index, row, kept in kept_rows(scores, keep):
        if len(kept):
            full = torch.zeros_like(scores[index])
            full[row] = function(kept)
            weights[index] = full
    return weights


def test_softmax_is_that_of_the_kept_scores(scores, keep):
    expected = by_rows(lambda z: torch.softmax(z, 0), scores, keep)
    torch.testing.assert_close(n.softmax(scores, keep), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sink", [0.0, -1.5])
def test_a_sink_adds_its_exponential_to_the_denominator(scores, keep, sink):
    expected = by_rows(lambda z: z.exp() / (z.exp().sum() + math.exp(sink)), scores, keep)
    torch.testing.assert_close(n.softmax(scores, keep, sink=sink), expected, rtol=0, atol=1e-12)


def test_a_learned_sink_is_that_of_gpt_oss(scores):
    module = n.Softmax(sink="learned", num_heads=3).double()
    with torch.no_grad():
        module.sink.copy_(torch.tensor([0.5, -2.0, 3.0]))
    logits = module.sink[:, None, None].expand(2, 3, 5, 1)
    expected = torch.cat([scores, logits], -1).softmax(-1)[..., :-1]
    torch.testing.assert_close(module(scores).weights, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        ("sparsemax", "sparsemax", {}),
        ("entmax15", "entmax15", {}),
        ("entmax13", "entmax_bisect", {"alpha": 1.3, "n_iter": 70}),
        ("entmax25", "entmax_bisect", {"alpha": 2.5, "n_iter": 70}),
    ],
)
def test_sparse_weights_and_gradients_equal_the_entmax_package(scores, keep, ours, theirs, options):
    entmax = pytest.importorskip("entmax")
    scores.requires_grad_()
    cotangent = torch.randn_like(scores)
    expected = by_rows(lambda z: getattr(entmax, theirs)(z, **options), scores, keep)
    (wanted,) = torch.autograd.grad(expected, scores, cotangent)
    weights = FUNCTIONS[ours](scores, keep)
    (gradient,) = torch.autograd.grad(weights, scores, cotangent)
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-7)


@pytest.mark.parametrize("alpha", [1.2, 1.5, 1.8, 2.0, 3.0])
def test_entmax_meets_the_conditions_of_its_optimum(scores, keep, alpha):
    """w = max((α−1) z − τ, 0)^(1/(α−1)) with one τ a row, and Σ w = 1."""
    weights = n.entmax(scores, keep, alpha=alpha)
    assert (weights[~keep] == 0).all()
    for index, row, kept in kept_rows(scores, keep):
        w = weights[index][row]
        if not len(kept):
            continue
        assert math.isclose(w.sum().item(), 1, abs_tol=1e-9)
        taus = (alpha - 1) * kept[w > 0] - w[w > 0] ** (alpha - 1)
        assert taus.max() - taus.min() < 1e-8
        assert ((alpha - 1) * kept[w == 0] <= taus.min() + 1e-8).all()


def test_entmax_spans_softmax_and_sparsemax(scores, keep):
    torch.testing.assert_close(n.entmax(scores, keep, alpha=1.0), n.softmax(scores, keep))
    torch.testing.assert_close(n.entmax(scores, keep, alpha=2.0), n.sparsemax(scores, keep))
    near_two = n.entmax(scores, keep, alpha=2.0 + 1e-9)
    torch.testing.assert_close(near_two, n.sparsemax(scores, keep), atol=1e-7, rtol=0)


def test_sparsemax_of_two_scores_is_a_clipped_line():
    for t in (-2.0, -0.4, 0.0, 0.7, 3.0):
        z = torch.tensor([[[[t, 0.0]]]], dtype=torch.float64)
        expected = min(max((t + 1) / 2, 0), 1)
        assert math.isclose(n.sparsemax(z)[0, 0, 0, 0].item(), expected, abs_tol=1e-12)


def test_sigmoid_and_relu_weigh_each_key_alone(scores, keep):
    expected = torch.zeros_like(scores)
    rectified = torch.zeros_like(scores)
    for index in keep.nonzero().tolist():
        z = scores[tuple(index)].item()
        expected[tuple(index)] = 1 / (1 + math.exp(-(z - math.log(7))))
        rectified[tuple(index)] = max(z, 0) / 7
    torch.testing.assert_close(n.sigmoid(scores, keep), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(n.relu(scores, keep), rectified, rtol=0, atol=1e-12)
    biased = n.sigmoid(scores, bias=0.5)
    torch.testing.assert_close(biased, torch.sigmoid(scores + 0.5), rtol=0, atol=1e-12)


def test_topk_is_softmax_over_the_largest_with_ties(scores, keep):
    def largest(z):
        least = z.sort(descending=True).values[min(3, len(z)) - 1]
        return torch.where(z >= least, z, -torch.inf).softmax(0)

    expected = by_rows(largest, scores, keep)
    torch.testing.assert_close(n.topk(scores, keep, k=3), expected, rtol=0, atol=1e-12)
    tied = n.topk(torch.tensor([[[[1.0, 2.0, 2.0, 0.0]]]]), k=1)
    torch.testing.assert_close(tied, torch.tensor([[[[0.0, 0.5, 0.5, 0.0]]]]))


def test_sum_shares_out_in_proportion(scores, keep):
    positive = scores.abs()
    expected = by_rows(lambda z: z / z.sum(), positive, keep)
    torch.testing.assert_close(n.sum_to_one(positive, keep), expected, rtol=0, atol=1e-12)
    assert (n.sum_to_one(torch.zeros(1, 1, 1, 3)) == 0).all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_equal_finite_differences(scores, keep, name):
    small, mask = scores[:1, :1, 1:].clone().requires_grad_(), keep[:1, :1, 1:]
    assert torch.autograd.gradcheck(lambda z: FUNCTIONS[name](z, mask), small)


@pytest.mark.parametrize("name", SIMPLEX)
def test_weights_are_a_distribution_over_the_kept_keys(scores, keep, name):
    weights = FUNCTIONS[name](scores, keep)
    rows = keep.any(-1)
    assert (weights >= 0).all()
    assert (weights[~keep] == 0).all()
    torch.testing.assert_close(weights.sum(-1)[rows], torch.ones_like(weights.sum(-1)[rows]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", AXES["normaliser"])
def test_an_empty_row_gets_zeros_and_no_gradient(scores, keep, name, dtype):
    module = AXES["normaliser"][name]().train()
    z = scores.abs().to(dtype).requires_grad_()
    result = module(z, keep)
    assert result.weights.dtype == dtype
    assert (result.weights[~keep] == 0).all()
    loss = result.weights.float().square().sum()
    for extra in (result.log_prob, result.entropy):
        if extra is not None:
            assert (extra[~keep.any(-1)] == 0).all()
            loss = loss + extra.float().sum()
    if loss.requires_grad:
        (gradient,) = torch.autograd.grad(loss, z)
        assert gradient.isfinite().all()
        assert (gradient[0, :, 2] == 0).all()


@pytest.mark.parametrize("name", ["softmax", "sparsemax", "entmax15", "entmax13", "sigmoid"])
def test_huge_scores_in_half_precision_stay_finite(name):
    z = torch.tensor([[[[60000.0, -60000.0, 0.0]]]], dtype=torch.float16)
    weights = FUNCTIONS[name](z)
    assert weights.isfinite().all()
    assert weights[..., 0].item() > 0.99


def test_argmax_takes_the_lowest_index_on_ties():
    z = torch.tensor([[[[0.0, 3.0, 1.0, 3.0]]]])
    assert n.argmax(z).tolist() == [[[[0.0, 1.0, 0.0, 0.0]]]]
    keep = torch.tensor([[[[True, False, True, True]]]])
    assert n.argmax(z, keep).tolist() == [[[[0.0, 0.0, 0.0, 1.0]]]]


def test_gumbel_is_hard_forward_and_has_the_soft_gradient_backward(scores, keep):
    """dy/dz = (diag(y) − y yᵀ) / T of y = softmax((z + g) / T), over the kept keys."""
    temperature, noise = 0.7, n.hard.gumbel_like(scores)
    scores.requires_grad_()
    weights = n.gumbel_st(scores, keep, temperature=temperature, noise=noise)
    cotangent = torch.randn_like(scores)
    (gradient,) = torch.autograd.grad(weights, scores, cotangent)
    expected = torch.zeros_like(gradient)
    for index, row, kept in kept_rows(scores.detach() + noise, keep):
        if not len(kept):
            continue
        y = torch.softmax(kept / temperature, 0)
        jacobian = (torch.diag(y) - torch.outer(y, y)) / temperature
        full = torch.zeros(7, dtype=torch.float64)
        full[row] = jacobian @ cotangent[index][row]
        expected[index] = full
        assert set(weights[index].tolist()) <= {0.0, 1.0}
        assert weights[index][row].argmax() == kept.argmax()
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["gumbel_st", "reinforce"])
def test_samples_follow_the_softmax_of_the_scores(name):
    options = {"soft_probability": 0.0} if name == "reinforce" else {}
    module = AXES["normaliser"][name](**options).train()
    z = torch.tensor([0.5, -1.0, 1.5, 9.0])
    keep = torch.tensor([True, True, True, False])
    weights = module(z.expand(1, 1, 20000, 4), keep.expand(1, 1, 1, 4)).weights
    expected = torch.cat([z[:3].softmax(0), torch.zeros(1)])
    # Three standard errors of a share estimated from 20,000 draws are at most 0.011.
    torch.testing.assert_close(weights.mean((0, 1, 2)), expected, rtol=0, atol=0.011)


@pytest.mark.parametrize("name", ["gumbel_st", "reinforce"])
def test_hard_attention_is_argmax_outside_training(scores, keep, name):
    module = AXES["normaliser"][name]().eval()
    assert (module(scores, keep).weights == n.argmax(scores, keep)).all()


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("name", ["gumbel_st", "reinforce"])
def test_drawn_keys_come_with_log_probability_and_entropy(scores, keep, name, is_training):
    options = {"soft_probability": 0.0} if name == "reinforce" else {}
    drawn = AXES["normaliser"][name](**options).train(is_training)(scores, keep)
    log_prob, entropy = torch.zeros(2, 3, 5).double(), torch.zeros(2, 3, 5).double()
    for index, row, kept in kept_rows(scores, keep):
        if len(kept):
            log_alpha = kept.log_softmax(0)
            log_prob[index] = log_alpha[drawn.weights[index][row].argmax()]
            entropy[index] = -(log_alpha.exp() * log_alpha).sum()
    torch.testing.assert_close(drawn.log_prob, log_prob, rtol=0, atol=1e-12)
    torch.testing.assert_close(drawn.entropy, entropy, rtol=0, atol=1e-12)


def test_log_probabilities_and_entropies_have_their_closed_form_gradients(scores, keep):
    scores.requires_grad_()
    log_alpha, entropy = n.categorical(scores, keep)
    (gradient,) = torch.autograd.grad(entropy.sum(), scores, retain_graph=True)
    expected, values = torch.zeros_like(scores), torch.zeros(2, 3, 5, dtype=torch.float64)
    for index, row, kept in kept_rows(scores.detach(), keep):
        if len(kept):
            alpha = kept.softmax(0)
            values[index] = -(alpha * alpha.log()).sum()
            full = torch.zeros(7, dtype=torch.float64)
            full[row] = -alpha * (alpha.log() + values[index])
            expected[index] = full
    torch.testing.assert_close(entropy, values, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)

    (gradient,) = torch.autograd.grad(log_alpha[1, 0, 0, 0], scores)
    row = keep[1, 0, 0]
    alpha = scores[1, 0, 0].detach().masked_fill(~row, -torch.inf).softmax(0)
    wanted = -alpha
    wanted[0] += 1
    torch.testing.assert_close(gradient[1, 0, 0], wanted, rtol=0, atol=1e-12)


def test_reinforce_reports_the_log_probability_of_what_it_sampled(scores, keep):
    result = n.Reinforce(soft_probability=0.0).train()(scores, keep)
    log_alpha, entropy = n.categorical(scores, keep)
    for index, _, kept in kept_rows(scores, keep):
        if len(kept):
            chosen = result.weights[index].argmax()
            assert result.log_prob[index] == log_alpha[(*index, chosen)]
    torch.testing.assert_close(result.entropy, entropy)
    soft = n.Reinforce(soft_probability=1.0).train()(scores, keep)
    torch.testing.assert_close(soft.weights, n.softmax(scores, keep))
    assert (soft.log_prob == 0).all()


def test_half_of_the_examples_get_soft_weights(scores):
    many = scores[:1].expand(4000, 3, 5, 7)
    result = n.Reinforce().train()(many)
    soft = (result.log_prob == 0).flatten(1).all(1)
    hard = (result.weights.amax(-1) == 1).flatten(1).all(1)
    assert (soft ^ hard).all()
    # Three standard errors of a fair coin thrown 4,000 times.
    assert abs(soft.double().mean().item() - 0.5) < 0.024


def test_logsumexp_is_that_of_the_kept_scores(scores, keep):
    lse = n.logsumexp(scores, keep)
    for index, _, kept in kept_rows(scores, keep):
        expected = math.log(kept.exp().sum()) if len(kept) else -math.inf
        assert lse[index].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: n.Entmax(alpha=0.5), "alpha=0.5"),
        (lambda: n.TopK(k=0), "k=0"),
        (lambda: n.GumbelST(temperature=0.0), "temperature=0.0"),
        (lambda: n.Reinforce(soft_probability=2.0), "soft_probability=2.0"),
        (lambda: n.Softmax(sink="learnt"), "sink='learnt'"),
    ],
)
def test_impossible_options_are_refused(build, said):
    with pytest.raises(ValueError, match=said):
        build()
