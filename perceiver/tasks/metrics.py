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

_WHOLE = "whole"  # no modality is called so


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

    A subset's metric is over the examples that have any of it: other examples than another
    subset's. With `is_test`, the same is reported over those alone that have all modalities
    (`complete/acc/image`), where not all do, and how many examples each value is of (`examples`,
    `examples/image`, `complete/examples`).

    Args:
        objective: gives the metrics.
        subsets: names of the subsets of modalities that its monitored metric is reported for.
        parts: names of the parts of the split that all its metrics are reported for; they do not
            count towards the whole.
        is_test: whether to report as much as there is to say, once, rather than every epoch.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        subsets: Sequence[str],
        parts: Sequence[str] = (),
        is_test: bool = False,
    ) -> None:
        super().__init__()

        self.loss = MeanMetric(nan_strategy="disable")  # a diverged run must show it
        self.whole = Counted(objective.test_metrics() if is_test else objective.metrics())
        self.subsets: Mapping[str, Counted] = _monitored(objective, subsets)
        complete = [*subsets, _WHOLE] if is_test and subsets else []
        self.complete: Mapping[str, Counted] = _monitored(objective, complete)
        self.is_test = is_test
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
            if self.complete:
                some = some & batch.has_all()
                _add(self.complete[_WHOLE], objective, outputs, batch, some)
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
        if self.complete:
            _add(self.complete[name], objective, outputs, batch, some & batch.has_all())

    def compute(self) -> dict[str, Tensor]:
        """All values over all processes; what no example counted for is left out."""
        values = self.whole.compute()
        if values:
            values = {"loss": self.loss.compute(), **values}
        apart = [*self.subsets.items(), *self.parts.items()]
        for name, metrics in apart:
            values |= {f"{key}/{name}": value for key, value in metrics.compute().items()}
        if self.is_test:
            counts = {"examples": self.whole} | {f"examples/{name}": each for name, each in apart}
            found = {name: each.count.compute() for name, each in counts.items()}
            values |= {name: count for name, count in found.items() if count > 0}
            values |= self._of_complete()
        return {name: value.float() for name, value in values.items()}

    def _of_complete(self) -> dict[str, Tensor]:
        """The values over the examples that have all modalities; none where all or none do."""
        found = {name: metrics.compute() for name, metrics in self.complete.items()}
        if not found.get(_WHOLE):
            return {}
        count = self.complete[_WHOLE].count.compute()
        if count >= self.whole.count.compute():
            return {}
        values = {"complete/examples": count}
        for name, computed in found.items():
            end = "" if name == _WHOLE else f"/{name}"
            values |= {f"complete/{key}{end}": value for key, value in computed.items()}
        return values

    def reset(self) -> None:
        """Start anew."""
        self.loss.reset()
        apart = (self.subsets, self.complete, self.parts)
        for metrics in (self.whole, *(each for group in apart for each in group.values())):
            metrics.reset()


def _monitored(objective: Objective, names: Sequence[str]) -> Any:
    """A module of the monitored metric for each name."""
    monitor = objective.monitor
    return nn.ModuleDict(
        {name: Counted(MetricCollection({monitor: objective.monitored()})) for name in names}
    )


def _add(
    to: Counted, objective: Objective, outputs: Tensor, batch: Batch, some: Bool[Tensor, " b"]
) -> None:
    to.count.update(some.sum())
    if some.any():
        objective.update(to.metrics, outputs, batch, some)
