"""Losses that attention needs besides the task's: REINFORCE and the doubly stochastic penalty."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


def reinforce_loss(
    log_likelihood: Float[Tensor, " b"],
    log_prob: Float[Tensor, "b *steps"],
    entropy: Float[Tensor, "b *steps"],
    *,
    baseline: float | Tensor = 0.0,
    reward_weight: float = 1.0,
    entropy_weight: float = 0.01,
) -> Float[Tensor, ""]:
    """What to add to −log p(y | s̃) so that sampled attention learns (Xu et al. 2015, §4.1).

    Its gradient is minus the mean over the batch of
    λ_r (log p(y | s̃) − b) ∇ Σ log α_s̃ + λ_e ∇ Σ H[α], sums over decoding steps and heads. It is
    unbiased whatever b is, as long as b does not depend on the sample.

    Args:
        log_likelihood: log p(y | s̃) of each example; it is not differentiated here.
        log_prob: log α of the sampled keys, `AttentionOutput.aux.log_prob`.
        entropy: H[α], `AttentionOutput.aux.entropy`.
        baseline: b.
        reward_weight: λ_r.
        entropy_weight: λ_e.
    """
    advantage = (log_likelihood - baseline).detach()
    sampled = log_prob.flatten(1).sum(1)
    spread = entropy.flatten(1).sum(1)
    return -(reward_weight * advantage * sampled + entropy_weight * spread).mean()


class RunningBaseline(nn.Module):
    """b ← 0.9 b + 0.1 · mean log p over the batch (Xu et al. 2015, §4.1).

    Args:
        decay: share of the old value that stays.
    """

    value: Tensor

    def __init__(self, *, decay: float = 0.9) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("value", torch.zeros(()))

    @torch.no_grad()
    def update(self, log_likelihood: Float[Tensor, " b"]) -> None:
        """Takes a batch into account; call it after the loss has used the old value."""
        self.value.mul_(self.decay).add_(log_likelihood.mean(), alpha=1 - self.decay)

    def forward(self) -> Float[Tensor, ""]:
        return self.value


def doubly_stochastic_penalty(
    weights: Float[Tensor, "b h q k"], *, weight: float = 1.0
) -> Float[Tensor, ""]:
    """λ Σ_i (1 − Σ_t α_ti)², mean over examples and heads: all keys should be read at some time.

    Xu et al. 2015, eq. 14.

    Args:
        weights: α, steps t as queries and places i as keys.
        weight: λ.
    """
    return weight * (1 - weights.sum(-2)).square().sum(-1).mean()
