"""The metrics of one split: the loss, the objective's, and one for each subset of modalities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, SumMetric

from perceiver.tasks.objectives import Objective


class FullPrecision(nn.Module):
    """Base of modules whose numbers stay in float32 when what holds them goes to half precision.

    Sums over a data set are such numbers: in bfloat16 they stop growing after a few hundred terms.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        def moved(tensor: Tensor) -> Tensor:
            return fn(tensor).to(tensor.dtype)

        return super()._apply(moved, recurse)


class MetricDict(FullPrecision, nn.ModuleDict):
    """Metrics, or lists of them, by name, in full precision."""


class SplitMetrics(FullPrecision):
    """Collects over batches and processes; exact however the split was cut up.

    The loss is the mean over examples, whatever the sizes of the batches.

    Args:
        objective: gives the metrics.
        subsets: names of the subsets that are reported besides the whole.
    """

    def __init__(self, *, objective: Objective, subsets: Sequence[str]) -> None:
        super().__init__()
        self.monitor, self.metric_target = objective.monitor, objective.metric_target
        self.loss = MeanMetric(nan_strategy="disable")  # a diverged run must show it
        self.scores = objective.metrics()
        self.subset_scores: Mapping[str, Metric] = nn.ModuleDict(  # type: ignore[assignment]
            {name: objective.monitored() for name in subsets}
        )
        self.subset_counts: Mapping[str, SumMetric] = nn.ModuleDict(  # type: ignore[assignment]
            {name: SumMetric() for name in subsets}
        )

    def update(self, loss: Tensor, predictions: Tensor, target: Tensor) -> None:
        """Add a batch, given everything that its examples have."""
        # Once an example: MeanMetric without its check for NaN ignores weights.
        self.loss.update(loss.float().expand(len(target)))
        self.scores.update(_full(predictions), self.metric_target(target))

    def update_subset(self, name: str, predictions: Tensor, target: Tensor) -> None:
        """Add what was predicted from a subset, for the examples that have any of it."""
        self.subset_counts[name].update(torch.tensor(float(len(target)), device=target.device))
        if len(target):
            self.subset_scores[name].update(_full(predictions), self.metric_target(target))

    def compute(self) -> dict[str, Tensor]:
        """All values over all processes; a subset that no example has any of is left out."""
        values = {"loss": self.loss.compute(), **self.scores.compute()}
        for name, metric in self.subset_scores.items():
            # The count is the same on every process, so that none waits for another in vain.
            if self.subset_counts[name].compute() > 0:
                values[f"{self.monitor}/{name}"] = metric.compute()
        return {name: value.float() for name, value in values.items()}

    def reset(self) -> None:
        """Start anew."""
        self.loss.reset()
        self.scores.reset()
        for name, metric in self.subset_scores.items():
            metric.reset()
            self.subset_counts[name].reset()


def _full(values: Tensor) -> Tensor:
    return values.float() if values.is_floating_point() else values
