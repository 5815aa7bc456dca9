"""One of several classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from perceiver.tasks.objectives.objective import Objective, metric_then_loss, widened
from perceiver.types import Batch, TargetKind


class SingleLabel(Objective):
    """One of `out_dim` classes: cross-entropy, accuracy and macro F1.

    Targets are (b,) class indices, or (b, out_dim) shares of the classes that sum to 1, as mixed
    examples have; metrics then take the largest. For each of o outputs they are (b, o) or
    (b, o, out_dim).

    Args:
        out_dim: classes.
        label_smoothing: share of the target spread over all classes.
        monitor: "acc" or "f1".
        mode: "max".
        target: which of the batch's targets it reads.

    Raises:
        ValueError: for a smoothing that is no share; in `losses`, for targets that are neither
            class indices below `out_dim` nor shares of classes.
    """

    targets: ClassVar[TargetKind | None] = TargetKind.CLASS

    def __init__(
        self,
        *,
        out_dim: int,
        label_smoothing: float = 0.0,
        monitor: str = "acc",
        mode: str = "max",
        target: str = "target",
    ) -> None:
        super().__init__(out_dim=out_dim, monitor=monitor, mode=mode, target=target)
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(f"label_smoothing={label_smoothing} must lie in [0, 1]")
        self.label_smoothing = label_smoothing

    def is_dense(self, target: Tensor) -> bool:
        return target.dim() == (3 if target.is_floating_point() else 2)

    def check_shape(self, outputs: Tensor, target: Tensor) -> None:
        wanted = outputs.shape if target.is_floating_point() else outputs.shape[:1]
        if target.shape != wanted:
            raise ValueError(
                f"single-label targets have shape {tuple(target.shape)} and type {target.dtype}, "
                f"outputs {tuple(outputs.shape)}: give one class index an example"
            )

    def check_values(self, target: Tensor) -> None:
        if target.is_floating_point():
            if not (
                bool((target >= 0).all())
                and torch.allclose(target.sum(-1), target.new_ones(()), atol=1e-4)
            ):
                raise ValueError("targets that are shares of classes must be ≥ 0 and sum to 1")
        elif not bool(((target >= 0) & (target < self.out_dim)).all()):
            wrong = target[(target < 0) | (target >= self.out_dim)][0]
            raise ValueError(f"label {int(wrong)} is out of range for {self.out_dim} classes")

    def costs(self, outputs: Tensor, target: Tensor) -> Tensor:
        wide = widened(outputs)
        target = target.to(wide.dtype) if target.is_floating_point() else target
        smoothing = self.label_smoothing
        return F.cross_entropy(wide, target, label_smoothing=smoothing, reduction="none")

    def metrics(self) -> MetricCollection:
        return MetricCollection(
            {
                "acc": MulticlassAccuracy(self.out_dim, average="micro"),
                "f1": MulticlassF1Score(self.out_dim, average="macro"),
            }
        )

    def score(self, values: Mapping[str, Tensor]) -> Tensor:
        return metric_then_loss(values, self.monitor, self.mode)

    def metric_target(self, target: Tensor) -> Tensor:
        return target.argmax(-1) if target.is_floating_point() else target

    def predict(self, outputs: Tensor, batch: Batch | None = None) -> Tensor:
        return outputs.float().softmax(-1)
