"""The metrics of one split: the loss, the objective's, and one for each subset of modalities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, SumMetric

from perceiver.tasks.objectives import Objective


class SplitMetrics(nn.Module):
    """Collects over batches and processes; exact however the split was cut up.

    Args:
        objective: gives the metrics.
        subsets: names of the subsets that are reported besides the whole.
    """

    def __init__(self, *, objective: Objective, subsets: Sequence[str]) -> None:
        super().__init__()
        self.monitor = objective.monitor
        self.loss = MeanMetric()
        self.scores = objective.metrics()
        self.subset_scores = nn.ModuleDict({name: objective.monitored() for name in subsets})
        self.subset_counts = nn.ModuleDict({name: SumMetric() for name in subsets})

    def update(self, loss: Tensor, predictions: Tensor, target: Tensor) -> None:
        """Add a batch, given everything that its examples have."""
        self.loss.update(loss, len(target))
        self.scores.update(predictions, target)

    def update_subset(self, name: str, predictions: Tensor, target: Tensor) -> None:
        """Add what was predicted from a subset, for the examples that have any of it."""
        self.subset_counts[name].update(torch.tensor(float(len(target)), device=target.device))
        if len(target):
            self.subset_scores[name].update(predictions, target)

    def compute(self) -> dict[str, Tensor]:
        """All values over all processes; a subset that no example has any of is left out."""
        values = {"loss": self.loss.compute(), **self.scores.compute()}
        for name, metric in self.subset_scores.items():
            # Every process computes everything, so that none waits for another in vain.
            value, count = metric.compute(), self.subset_counts[name].compute()
            if count > 0:
                values[f"{self.monitor}/{name}"] = value
        return {name: value.float() for name, value in values.items()}

    def reset(self) -> None:
        """Start anew."""
        for module in self.modules():
            if isinstance(module, Metric):
                module.reset()
