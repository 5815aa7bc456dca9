"""REINFORCE by enumeration, and the doubly stochastic penalty."""

from __future__ import annotations

import math

import pytest
import torch

from perceiver.attention import RunningBaseline, doubly_stochastic_penalty, reinforce_loss
from perceiver.attention.normalisers import categorical


@pytest.mark.parametrize("baseline", [0.0, -3.7])
def test_reinforce_is_unbiased_whatever_the_baseline(baseline):
    """Σ_s α_s (its gradient at s) is the gradient of Σ_s α_s log p(y | s), enumerating all s."""
    scores = torch.randn(7, dtype=torch.float64, requires_grad=True)
    rewards = torch.randn(7, dtype=torch.float64)
    expected_reward = (scores.softmax(0) * rewards).sum()
    (wanted,) = torch.autograd.grad(expected_reward, scores)

    average = torch.zeros(7, dtype=torch.float64)
    for s in range(7):
        log_alpha, entropy = categorical(scores[None, None, None])
        loss = reinforce_loss(
            rewards[s : s + 1],
            log_alpha[..., s],
            entropy,
            baseline=baseline,
            entropy_weight=0.0,
        )
        (gradient,) = torch.autograd.grad(loss, scores)
        average -= scores.detach().softmax(0)[s] * gradient
    torch.testing.assert_close(average, wanted, rtol=0, atol=1e-12)


def test_terms_are_summed_over_steps_and_heads_and_averaged_over_the_batch():
    log_prob, entropy = torch.randn(2, 3, 5).double(), torch.rand(2, 3, 5).double()
    likelihood = torch.tensor([-1.0, 2.0], dtype=torch.float64)
    loss = reinforce_loss(
        likelihood, log_prob, entropy, baseline=0.5, reward_weight=0.3, entropy_weight=0.2
    )
    expected = 0.0
    for b in range(2):
        for h in range(3):
            for t in range(5):
                advantage = likelihood[b].item() - 0.5
                expected -= 0.3 * advantage * log_prob[b, h, t].item() / 2
                expected -= 0.2 * entropy[b, h, t].item() / 2
    assert loss.item() == pytest.approx(expected, abs=1e-12)


def test_the_reward_is_not_differentiated():
    likelihood = torch.randn(2, requires_grad=True)
    loss = reinforce_loss(
        likelihood, torch.randn(2, 1, 1, requires_grad=True), torch.rand(2, 1, 1), baseline=0.1
    )
    assert torch.autograd.grad(loss, likelihood, allow_unused=True) == (None,)


def test_the_baseline_runs_after_the_mean():
    baseline = RunningBaseline()
    baseline.update(torch.tensor([-2.0, -4.0]))
    baseline.update(torch.tensor([-1.0]))
    assert baseline().item() == pytest.approx(0.9 * (0.1 * -3.0) + 0.1 * -1.0)
    assert "value" in baseline.state_dict()


def test_the_penalty_is_that_of_equation_14():
    weights = torch.rand(2, 3, 5, 7).double()
    expected = sum(
        (1 - sum(weights[b, h, t, i].item() for t in range(5))) ** 2
        for b in range(2)
        for h in range(3)
        for i in range(7)
    )
    penalty = doubly_stochastic_penalty(weights, weight=0.3)
    assert math.isclose(penalty.item(), 0.3 * expected / 6, abs_tol=1e-12)
