"""Losses that attention needs besides the task's: REINFORCE and the doubly stochastic penalty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from perceiver.attention.attention import Attention
from perceiver.attention.normalisers import Reinforce
from perceiver.attention.output import AttentionAux
from perceiver.ops.checks import check_shape
from perceiver.shapes import Float


def reinforce_loss(
    log_likelihood: Float[Tensor, " b"],
    log_prob: Float[Tensor, "b *steps"] | None,
    entropy: Float[Tensor, "b *steps"] | None,
    *,
    baseline: float | Tensor = 0.0,
    reward_weight: float = 1.0,
    entropy_weight: float = 0.01,
) -> Float[Tensor, ""]:
    """What to add to −log p(y | s̃) so that sampled attention learns (Xu et al. 2015, 4.1).

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

    Raises:
        ValueError: for shapes that do not fit each other, or of attention that does not sample.
    """
    if log_prob is None or entropy is None:
        raise ValueError(
            "log_prob and entropy are None: the attention draws nothing; use normaliser=reinforce"
        )
    check_shape("log_likelihood", log_likelihood, log_prob.shape[0])
    check_shape("entropy", entropy, *log_prob.shape)
    advantage = (log_likelihood - baseline).detach()
    sampled = log_prob.flatten(1).sum(1)
    spread = entropy.flatten(1).sum(1)
    return -(reward_weight * advantage * sampled + entropy_weight * spread).mean()


class RunningBaseline(nn.Module):
    """b ← 0.9 b + 0.1 · mean log p over the batch (Xu et al. 2015, 4.1).

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


class SampledChoices:
    """What attentions that sample, wherever they are in a model, know of their choices.

    `with choices as found: model(x)` fills the list `found`, a member for each time that such an
    attention ran. True if the model has such attention at all.

    Args:
        model: its attentions get a hook, once and for all, so that a compiled model has it too.
    """

    def __init__(self, model: nn.Module) -> None:
        self.found: list[AttentionAux] | None = None
        self.count = 0
        for module in model.modules():
            if isinstance(module, Attention) and isinstance(module.normaliser, Reinforce):
                module.register_forward_hook(self._take)
                self.count += 1

    def _take(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.found is not None:
            self.found.append(output.aux)

    def __bool__(self) -> bool:
        return self.count > 0

    def __enter__(self) -> list[AttentionAux]:
        self.found = []
        return self.found

    def __exit__(self, *error: object) -> None:
        self.found = None


class ReinforceLoss(nn.Module):
    """`reinforce_loss` of all choices in a model, with a running baseline.

    Added to the mean of the examples' losses, its gradient is an unbiased estimate of the gradient
    of their expectation over the samples (with weights 1 and 0), whatever layers sampled.

    Args:
        reward_weight: λ_r.
        entropy_weight: λ_e.
        baseline_decay: share of the baseline's old value that stays.
    """

    def __init__(
        self,
        *,
        reward_weight: float = 1.0,
        entropy_weight: float = 0.01,
        baseline_decay: float = 0.9,
    ) -> None:
        super().__init__()
        if not 0 <= baseline_decay < 1:
            raise ValueError(f"baseline_decay={baseline_decay} must lie in [0, 1)")
        self.reward_weight, self.entropy_weight = reward_weight, entropy_weight
        self.baseline = RunningBaseline(decay=baseline_decay)

    def forward(
        self, log_likelihood: Float[Tensor, " b"], choices: Sequence[AttentionAux]
    ) -> Float[Tensor, ""]:
        """The loss of a batch, whose mean log-likelihood the baseline then takes in.

        Args:
            log_likelihood: minus the loss of each example.
            choices: what `SampledChoices` found.
        """
        if not choices:
            raise ValueError(
                "choices is empty: nothing in the model samples with normaliser=reinforce, "
                "so there is no loss of choices"
            )
        steps = [
            torch.cat([part.flatten(1) for part in parts if part is not None], 1)
            for parts in zip(*((aux.log_prob, aux.entropy) for aux in choices), strict=True)
        ]
        loss = reinforce_loss(
            log_likelihood,
            steps[0],
            steps[1],
            baseline=self.baseline(),
            reward_weight=self.reward_weight,
            entropy_weight=self.entropy_weight,
        )
        self.baseline.update(log_likelihood)
        return loss


def doubly_stochastic_penalty(
    weights: Float[Tensor, "b h q k"], *, weight: float = 1.0
) -> Float[Tensor, ""]:
    """λ Σ_i (1 − Σ_t α_ti)², mean over examples and heads: all keys should be read at some time.

    Xu et al. 2015, eq. 14.

    Args:
        weights: α, steps t as queries and places i as keys.
        weight: λ.

    Raises:
        ValueError: for weights of another rank.
    """
    check_shape("weights", weights, "b", "h", "q", "k")
    return weight * (1 - weights.sum(-2)).square().sum(-1).mean()
