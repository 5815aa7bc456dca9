"""The metrics of one split: the loss, the objective's, and those of parts and subsets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection, SumMetric
from torchmetrics.utilities.distributed import gather_all_tensors

from perceiver.shapes import Bool
from perceiver.tasks.objectives import Objective
from perceiver.types import Batch


class FullPrecision(nn.Module):
    """Base of modules whose numbers stay in float32 when what holds them goes to half precision.

    Sums over a data set are such numbers: in bfloat16 they stop growing after a few hundred terms.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        def moved(tensor: Tensor) -> Tensor:
            return fn(tensor).to(tensor.dtype)

        return super()._apply(moved, recurse)


def gather_any(values: Tensor, group: Any = None) -> list[Tensor]:
    """The tensors of all processes, where some may hold nothing yet.

    A list of predictions that nothing was added to knows neither their width nor their type, and
    processes that gather tensors of different ranks wait for each other for ever.
    """
    mine = (values.dtype, tuple(values.shape))
    kinds: list[Any] = [mine] * torch.distributed.get_world_size(group)
    torch.distributed.all_gather_object(kinds, mine, group)
    filled = [(dtype, shape) for dtype, shape in kinds if 0 not in shape]
    if values.numel() == 0 and filled:
        dtype, shape = filled[0]
        values = torch.empty((0, *shape[1:]), dtype=dtype, device=values.device)
    return gather_all_tensors(values, group)


class Counted(nn.Module):
    """Metrics with the number of examples that they are of.

    Args:
        metrics: of an objective.
    """

    def __init__(self, metrics: MetricCollection) -> None:
        super().__init__()
        self.metrics, self.count = metrics, SumMetric()
        for metric in metrics.values():
            metric.dist_sync_fn = gather_any

    def compute(self) -> dict[str, Tensor]:
        """The values over all processes; none if no example counted."""
        # The count is the same on every process, so that none waits for another in vain.
        self.count.update(0.0)
        return self.metrics.compute() if self.count.compute() > 0 else {}

    def reset(self) -> None:
        self.metrics.reset()
        self.count.reset()


class SplitMetrics(FullPrecision):
    """Collects over batches and processes; exact however the split was cut up.

    The loss is the mean over the examples that have the target, whatever the sizes of the batches.

    Args:
        objective: gives the metrics.
        subsets: names of the subsets of modalities that its monitored metric is reported for.
        parts: names of the parts of the split that all its metrics are reported for; they do not
            count towards the whole.
    """

    def __init__(
        self, *, objective: Objective, subsets: Sequence[str], parts: Sequence[str] = ()
    ) -> None:
        super().__init__()
        monitor = objective.monitor
        self.loss = MeanMetric(nan_strategy="disable")  # a diverged run must show it
        self.whole = Counted(objective.metrics())
        self.subsets: Mapping[str, Counted] = nn.ModuleDict(  # type: ignore[assignment]
            {name: Counted(MetricCollection({monitor: objective.monitored()})) for name in subsets}
        )
        self.parts: Mapping[str, Counted] = nn.ModuleDict(  # type: ignore[assignment]
            {name: Counted(objective.metrics()) for name in parts}
        )

    def update(self, objective: Objective, outputs: Tensor, batch: Batch) -> None:
        """Add a batch, given everything that its examples have.

        Raises:
            ValueError: it is of a part that is not reported.
        """
        some = objective.answered(batch)
        if not batch.part:
            if some.any():
                self.loss.update(objective.losses(outputs, batch)[some].float())
            _add(self.whole, objective, outputs, batch, some)
        elif batch.part in self.parts:
            _add(self.parts[batch.part], objective, outputs, batch, some)
        else:
            raise ValueError(
                f"a batch is of the part {batch.part!r}, but the task reports "
                f"{', '.join(self.parts) or 'none'} apart: name it in task.parts"
            )

    def update_subset(
        self,
        name: str,
        objective: Objective,
        outputs: Tensor,
        batch: Batch,
        some: Bool[Tensor, " b"],
    ) -> None:
        """Add what was answered from a subset, for the examples that have any of it."""
        some = some & objective.answered(batch)
        _add(self.subsets[name], objective, outputs, batch, some)

    def compute(self) -> dict[str, Tensor]:
        """All values over all processes; what no example counted for is left out."""
        values = self.whole.compute()
        if values:
            values = {"loss": self.loss.compute(), **values}
        for name, metrics in [*self.subsets.items(), *self.parts.items()]:
            values |= {f"{key}/{name}": value for key, value in metrics.compute().items()}
        return {name: value.float() for name, value in values.items()}

    def reset(self) -> None:
        """Start anew."""
        self.loss.reset()
        for metrics in (self.whole, *self.subsets.values(), *self.parts.values()):
            metrics.reset()


def _add(
    to: Counted, objective: Objective, outputs: Tensor, batch: Batch, some: Bool[Tensor, " b"]
) -> None:
    to.count.update(some.sum())
    if some.any():
        objective.update(to.metrics, outputs, batch, some)
