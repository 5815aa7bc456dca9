"""Any number of labels at once."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MultilabelAccuracy, MultilabelAveragePrecision

from perceiver.tasks.objectives.class_metrics import LabelsAUROC
from perceiver.tasks.objectives.objective import Objective, metric_then_loss, widened
from perceiver.types import Batch, TargetKind


class MultiLabel(Objective):
    """Any number of `out_dim` labels: binary cross-entropy, mean average precision, accuracy.

    The test also reports AUROC.

    Targets are (b, out_dim) of 0 and 1, of any type, or shares between them, as mixed examples
    have; metrics round them. For each of o outputs they are (b, o, out_dim).

    Args:
        out_dim: labels.
        monitor: "map" or "acc".
        mode: "max".
        target: which of the batch's targets it reads.

    Raises:
        ValueError: in `losses`, for other targets.
    """

    targets = TargetKind.LABELS

    def __init__(
        self, *, out_dim: int, monitor: str = "map", mode: str = "max", target: str = "target"
    ) -> None:
        super().__init__(out_dim=out_dim, monitor=monitor, mode=mode, target=target)

    def check_shape(self, outputs: Tensor, target: Tensor) -> None:
        if target.shape != outputs.shape:
            raise ValueError(
                f"multi-label targets have shape {tuple(target.shape)}, outputs "
                f"{tuple(outputs.shape)}: give 0 or 1 for each of the {self.out_dim} labels"
            )

    def check_values(self, target: Tensor) -> None:
        if not bool(((target >= 0) & (target <= 1)).all()):
            wrong = target[~((target >= 0) & (target <= 1))][0]
            raise ValueError(f"multi-label targets hold {float(wrong):g}: give 0 or 1")

    def costs(self, outputs: Tensor, target: Tensor) -> Tensor:
        wide = widened(outputs)
        target = target.to(wide.dtype)
        return F.binary_cross_entropy_with_logits(wide, target, reduction="none").mean(1)

    def score(self, values: Mapping[str, Tensor]) -> Tensor:
        return metric_then_loss(values, self.monitor, self.mode)

    def metric_target(self, target: Tensor) -> Tensor:
        return target.round().long() if target.is_floating_point() else target.long()

    def metrics(self) -> MetricCollection:
        return MetricCollection(
            {
                "map": MultilabelAveragePrecision(self.out_dim),
                "acc": MultilabelAccuracy(self.out_dim),
            }
        )

    def test_metrics(self) -> MetricCollection:
        found = self.metrics()
        found.add_metrics({"auroc": LabelsAUROC(self.out_dim)})
        return found

    def predict(self, outputs: Tensor, batch: Batch | None = None) -> Tensor:
        return outputs.float().sigmoid()
