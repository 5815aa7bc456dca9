"""One of several classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassF1Score,
)

from perceiver.tasks.objectives.class_metrics import AUROC, BalancedAccuracy
from perceiver.tasks.objectives.objective import Objective, metric_then_loss, widened
from perceiver.types import Batch, TargetKind

_MANY = 100  # classes: of more, the test would keep too many probabilities for AUROC


class SingleLabel(Objective):
    """One of `out_dim` classes: cross-entropy, accuracy, macro F1, balanced accuracy.

    The test also reports the expected calibration error (15 bins) and, of up to 100 classes, AUROC.

    Targets are (b,) class indices, or (b, out_dim) shares of the classes that sum to 1, as mixed
    examples have; metrics then take the largest. For each of o outputs they are (b, o) or
    (b, o, out_dim).

    Args:
        out_dim: classes.
        label_smoothing: share of the target spread over all classes.
        class_weights: what an example of each class counts for in the loss, `out_dim` numbers;
            None = 1. train.py also takes "balanced": in inverse proportion to the training
            examples of the class, 1 on average over them.
        focal_gamma: an answer that gives the right class the probability p counts (1 - p)^gamma
            (Lin et al. 2017, equation 4); 0 = cross-entropy.
        monitor: "acc", "f1" or "balanced_acc".
        mode: "max".
        target: which of the batch's targets it reads.

    Raises:
        ValueError: for a smoothing that is no share, for weights that are not `out_dim` numbers
            above 0, and for a gamma below 0; in `losses`, for targets that are neither
            class indices below `out_dim` nor shares of classes.
    """

    targets: ClassVar[TargetKind | None] = TargetKind.CLASS
    class_weights: Tensor | None

    def __init__(
        self,
        *,
        out_dim: int,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | str | None = None,
        focal_gamma: float = 0.0,
        monitor: str = "acc",
        mode: str = "max",
        target: str = "target",
    ) -> None:
        super().__init__(out_dim=out_dim, monitor=monitor, mode=mode, target=target)
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(f"label_smoothing={label_smoothing} must lie in [0, 1]")
        if not focal_gamma >= 0.0:
            raise ValueError(
                f"task.objective.focal_gamma={focal_gamma}, expected 0 (cross-entropy) or more"
            )
        self.label_smoothing, self.focal_gamma = label_smoothing, focal_gamma
        weights = None if class_weights is None else _checked_weights(class_weights, out_dim)
        self.register_buffer("class_weights", weights, persistent=False)  # the config has them

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
        smoothing, weights = self.label_smoothing, self.class_weights
        weights = None if weights is None else weights.to(wide.dtype)
        if not self.focal_gamma:
            return F.cross_entropy(
                wide, target, weight=weights, label_smoothing=smoothing, reduction="none"
            )
        shares = target if target.is_floating_point() else F.one_hot(target, self.out_dim)
        shares = shares * (1 - smoothing) + smoothing / self.out_dim
        shares = shares if weights is None else shares * weights
        log_p = wide.log_softmax(-1)
        # At p = 1 the slope of (1 - p)^gamma may be infinite.
        doubt = (-torch.expm1(log_p)).clamp(min=1e-6) ** self.focal_gamma
        return -(shares * doubt * log_p).sum(-1)

    def metrics(self) -> MetricCollection:
        return MetricCollection(
            {
                "acc": MulticlassAccuracy(self.out_dim, average="micro"),
                "f1": MulticlassF1Score(self.out_dim, average="macro"),
                "balanced_acc": BalancedAccuracy(self.out_dim),
            }
        )

    def test_metrics(self) -> MetricCollection:
        found = self.metrics()
        found.add_metrics({"ece": MulticlassCalibrationError(self.out_dim, n_bins=15)})
        if self.out_dim <= _MANY:
            found.add_metrics({"auroc": AUROC(self.out_dim)})
        return found

    def score(self, values: Mapping[str, Tensor]) -> Tensor:
        return metric_then_loss(values, self.monitor, self.mode)

    def metric_target(self, target: Tensor) -> Tensor:
        return target.argmax(-1) if target.is_floating_point() else target

    def predict(self, outputs: Tensor, batch: Batch | None = None) -> Tensor:
        return outputs.float().softmax(-1)


def _checked_weights(weights: Sequence[float] | str, out_dim: int) -> Tensor:
    if isinstance(weights, str):
        raise ValueError(
            f"task.objective.class_weights={weights}, expected balanced (of data whose targets are "
            f"classes), {out_dim} numbers, or null"
        )
    if len(weights) != out_dim or not all(0 < weight < float("inf") for weight in weights):
        raise ValueError(
            f"task.objective.class_weights={list(weights)}: give {out_dim} numbers above 0, "
            "one for each class"
        )
    return torch.tensor([*weights], dtype=torch.float32)
