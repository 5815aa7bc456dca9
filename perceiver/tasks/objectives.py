"""What a model is trained for: the loss, the metrics and the meaning of its outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MultilabelAccuracy,
    MultilabelAveragePrecision,
)
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError, R2Score

from perceiver.shapes import Float


class R2(R2Score):
    """The share of the targets' variance that is explained; NaN for fewer than two examples."""

    def compute(self) -> Tensor:
        return super().compute() if self.total > 1 else self.residual.mean() * torch.nan


def _wide(outputs: Tensor) -> Tensor:
    """Losses are computed in float32 at least: half precision would round the targets."""
    return outputs.float() if outputs.dtype.itemsize < 4 else outputs


class Objective(nn.Module, ABC):
    """Base of objectives, for models with one output an example.

    `targets` says what the target of an example is: "a class", "labels" or "values".

    Args:
        out_dim: numbers that the model puts out for an example.
        monitor: the metric that selects the best checkpoint and that subsets are reported in.
        mode: "max" or "min", which of its values is best.

    Raises:
        ValueError: for a metric that the objective does not have.
    """

    targets: ClassVar[str]

    def __init__(self, *, out_dim: int, monitor: str, mode: str) -> None:
        super().__init__()
        self.out_dim, self.monitor, self.mode = out_dim, monitor, mode
        known = [str(name) for name in self.metrics()]
        if monitor not in known or mode not in ("max", "min"):
            raise ValueError(
                f"task.objective.monitor={monitor} with mode={mode}: choose a metric of "
                f"{', '.join(known)}, and max or min"
            )

    @abstractmethod
    def losses(self, outputs: Float[Tensor, "b k"], target: Tensor) -> Float[Tensor, " b"]:
        """The loss of each example."""

    def loss(self, outputs: Float[Tensor, "b k"], target: Tensor) -> Float[Tensor, ""]:
        """The loss, averaged over the batch."""
        return self.losses(outputs, target).mean()

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Fresh metrics, updated with (predict(outputs), target)."""

    def predict(self, outputs: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        """Outputs as a person would read them: probabilities, or values."""
        return outputs

    def metric_target(self, target: Tensor) -> Tensor:
        """The target as the metrics take it."""
        return target

    def monitored(self) -> Metric:
        """A fresh metric of the kind that is monitored."""
        return self.metrics()[self.monitor]

    def single_output(self, outputs: Float[Tensor, "b o k"]) -> Float[Tensor, "b k"]:
        """The one output of each example.

        Raises:
            ValueError: if the decoder gives several, or outputs of another width.
        """
        if outputs.shape[1:] != (1, self.out_dim):
            raise ValueError(
                f"{type(self).__name__} needs one output of width out_dim={self.out_dim} an "
                f"example, (batch, 1, {self.out_dim}); the model gives {tuple(outputs.shape)}"
            )
        return outputs[:, 0]


class SingleLabel(Objective):
    """One of `out_dim` classes: cross-entropy, accuracy and macro F1.

    Targets are (b,) class indices, or (b, out_dim) shares of the classes that sum to 1, as mixed
    examples have; metrics then take the largest.

    Args:
        out_dim: classes.
        label_smoothing: share of the target spread over all classes.
        monitor: "acc" or "f1".
        mode: "max".

    Raises:
        ValueError: for a smoothing that is no share; in `losses`, for targets that are neither (b,)
            class indices below `out_dim` nor (b, out_dim) shares of classes.
    """

    targets = "a class"

    def __init__(
        self,
        *,
        out_dim: int,
        label_smoothing: float = 0.0,
        monitor: str = "acc",
        mode: str = "max",
    ) -> None:
        super().__init__(out_dim=out_dim, monitor=monitor, mode=mode)
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(f"label_smoothing={label_smoothing} must lie in [0, 1]")
        self.label_smoothing = label_smoothing

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        if target.is_floating_point() and target.shape == outputs.shape:
            # On a GPU the check would stall the queue.
            if target.device.type == "cpu" and not (
                bool((target >= 0).all())
                and torch.allclose(target.sum(-1), target.new_ones(()), atol=1e-4)
            ):
                raise ValueError("targets that are shares of classes must be ≥ 0 and sum to 1")
            wide = _wide(outputs)
            return F.cross_entropy(
                wide,
                target.to(wide.dtype),
                label_smoothing=self.label_smoothing,
                reduction="none",
            )
        if target.shape != outputs.shape[:1] or target.is_floating_point():
            raise ValueError(
                f"single-label targets have shape {tuple(target.shape)} and type {target.dtype}, "
                f"outputs {tuple(outputs.shape)}: give one class index an example"
            )
        # On a GPU the check would stall the queue; there the data's own check must do.
        if target.device.type == "cpu" and not bool(
            ((target >= 0) & (target < self.out_dim)).all()
        ):
            wrong = target[(target < 0) | (target >= self.out_dim)][0]
            raise ValueError(f"label {int(wrong)} is out of range for {self.out_dim} classes")
        smoothing = self.label_smoothing
        return F.cross_entropy(_wide(outputs), target, label_smoothing=smoothing, reduction="none")

    def metrics(self) -> MetricCollection:
        return MetricCollection(
            {
                "acc": MulticlassAccuracy(self.out_dim, average="micro"),
                "f1": MulticlassF1Score(self.out_dim, average="macro"),
            }
        )

    def metric_target(self, target: Tensor) -> Tensor:
        return target.argmax(-1) if target.is_floating_point() else target

    def predict(self, outputs: Tensor) -> Tensor:
        return outputs.float().softmax(-1)


class MultiLabel(Objective):
    """Any number of `out_dim` labels: binary cross-entropy, mean average precision, accuracy.

    Targets are (b, out_dim) of 0 and 1, of any type, or shares between them, as mixed examples
    have; metrics round them.

    Raises:
        ValueError: in `losses`, for other targets.
    """

    targets = "labels"

    def __init__(self, *, out_dim: int, monitor: str = "map", mode: str = "max") -> None:
        super().__init__(out_dim=out_dim, monitor=monitor, mode=mode)

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        if target.shape != outputs.shape:
            raise ValueError(
                f"multi-label targets have shape {tuple(target.shape)}, outputs "
                f"{tuple(outputs.shape)}: give 0 or 1 for each of the {self.out_dim} labels"
            )
        if target.device.type == "cpu" and not bool(((target >= 0) & (target <= 1)).all()):
            wrong = target[~((target >= 0) & (target <= 1))][0]
            raise ValueError(f"multi-label targets hold {float(wrong):g}: give 0 or 1")
        wide = _wide(outputs)
        target = target.to(wide.dtype)
        return F.binary_cross_entropy_with_logits(wide, target, reduction="none").mean(1)

    def metric_target(self, target: Tensor) -> Tensor:
        return target.round().long() if target.is_floating_point() else target.long()

    def metrics(self) -> MetricCollection:
        return MetricCollection(
            {
                "map": MultilabelAveragePrecision(self.out_dim),
                "acc": MultilabelAccuracy(self.out_dim),
            }
        )

    def predict(self, outputs: Tensor) -> Tensor:
        return outputs.float().sigmoid()


class Regression(Objective):
    """`out_dim` real values: mean squared error; reported MAE, RMSE and R².

    Targets are (b, out_dim). The model predicts them standardised, so that values of any unit are
    learned alike; predictions and metrics are in the targets' own units.

    Args:
        out_dim: values.
        monitor: "mae", "rmse" or "r2".
        mode: "min" or "max".
        mean: of each value over the training examples; None = 0.
        std: standard deviation of each; None = 1.

    Raises:
        ValueError: for means or deviations that are not `out_dim` numbers, or not above 0; in
            `losses`, for targets of another shape.
    """

    targets = "values"
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        out_dim: int,
        monitor: str = "mae",
        mode: str = "min",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__(out_dim=out_dim, monitor=monitor, mode=mode)
        mean, std = mean or [0.0] * out_dim, std or [1.0] * out_dim
        if len(mean) != out_dim or len(std) != out_dim or min(std) <= 0:
            raise ValueError(
                f"task.objective.mean={[*mean]} and std={[*std]}: give {out_dim} numbers each, "
                "deviations above 0"
            )
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        if target.shape != outputs.shape:
            raise ValueError(
                f"regression targets have shape {tuple(target.shape)}, outputs "
                f"{tuple(outputs.shape)}: give {self.out_dim} values an example"
            )
        wide = _wide(outputs)
        standard = (target - self.mean).to(wide.dtype) / self.std
        return F.mse_loss(wide, standard, reduction="none").mean(1)

    def metrics(self) -> MetricCollection:
        return MetricCollection(
            {
                "mae": MeanAbsoluteError(),
                "rmse": MeanSquaredError(squared=False),
                "r2": R2(),
            }
        )

    def predict(self, outputs: Tensor) -> Tensor:
        return outputs.float() * self.std + self.mean
