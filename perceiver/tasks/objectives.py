"""What a model is trained for: the loss, the metrics and the meaning of its outputs."""

from __future__ import annotations

from abc import abstractmethod

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MultilabelAccuracy,
    MultilabelAveragePrecision,
)
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError, R2Score


class Objective(nn.Module):
    """Base of objectives, for models with one output an example.

    Args:
        out_dim: numbers that the model puts out for an example.
        monitor: the metric that selects the best checkpoint and that subsets are reported in.
        mode: "max" or "min", which of its values is best.

    Raises:
        ValueError: for a metric that the objective does not have.
    """

    def __init__(self, *, out_dim: int, monitor: str, mode: str) -> None:
        super().__init__()
        self.out_dim, self.monitor, self.mode = out_dim, monitor, mode
        known = list(self.metrics())
        if monitor not in known or mode not in ("max", "min"):
            raise ValueError(
                f"task.objective.monitor={monitor} with mode={mode}: choose a metric of "
                f"{', '.join(known)}, and max or min"
            )

    @abstractmethod
    def loss(self, outputs: Float[Tensor, "b k"], target: Tensor) -> Float[Tensor, ""]:
        """The loss, averaged over the batch."""

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Fresh metrics, updated with (predict(outputs), target)."""

    def predict(self, outputs: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        """Outputs as a person would read them: probabilities, or values."""
        return outputs

    def monitored(self) -> Metric:
        """A fresh metric of the kind that is monitored."""
        return self.metrics()[self.monitor]

    def single_output(self, outputs: Float[Tensor, "b o k"]) -> Float[Tensor, "b k"]:
        """The one output of each example.

        Raises:
            ValueError: if the decoder gives several, or outputs of another width.
        """
        if outputs.shape[1] != 1 or outputs.shape[2] != self.out_dim:
            raise ValueError(
                f"{type(self).__name__} needs one output of width out_dim={self.out_dim} an "
                f"example, the decoder gives {outputs.shape[1]} of width {outputs.shape[2]}"
            )
        return outputs[:, 0]


class SingleLabel(Objective):
    """One of `out_dim` classes: cross-entropy, accuracy and macro F1.

    Args:
        out_dim: classes.
        label_smoothing: share of the target spread over all classes.
        monitor: "acc" or "f1".
        mode: "max".
    """

    def __init__(
        self,
        *,
        out_dim: int,
        label_smoothing: float = 0.0,
        monitor: str = "acc",
        mode: str = "max",
    ) -> None:
        super().__init__(out_dim=out_dim, monitor=monitor, mode=mode)
        self.label_smoothing = label_smoothing

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        # On a GPU the check would stall the queue; there the data's own check must do.
        if target.device.type == "cpu" and not bool(
            ((target >= 0) & (target < self.out_dim)).all()
        ):
            wrong = target[(target < 0) | (target >= self.out_dim)][0]
            raise ValueError(f"label {int(wrong)} is out of range for {self.out_dim} classes")
        return F.cross_entropy(outputs, target, label_smoothing=self.label_smoothing)

    def metrics(self) -> MetricCollection:
        return MetricCollection(
            {
                "acc": MulticlassAccuracy(self.out_dim, average="micro"),
                "f1": MulticlassF1Score(self.out_dim, average="macro"),
            }
        )

    def predict(self, outputs: Tensor) -> Tensor:
        return outputs.float().softmax(-1)


class MultiLabel(Objective):
    """Any number of `out_dim` labels: binary cross-entropy, mean average precision, accuracy.

    Targets are (b, out_dim) of 0 and 1.
    """

    def __init__(self, *, out_dim: int, monitor: str = "map", mode: str = "max") -> None:
        super().__init__(out_dim=out_dim, monitor=monitor, mode=mode)

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        if target.shape != outputs.shape:
            raise ValueError(
                f"multi-label targets have shape {tuple(target.shape)}, outputs "
                f"{tuple(outputs.shape)}: give 0 or 1 for each of the {self.out_dim} labels"
            )
        return F.binary_cross_entropy_with_logits(outputs, target.to(outputs.dtype))

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

    Targets are (b, out_dim).
    """

    def __init__(self, *, out_dim: int, monitor: str = "mae", mode: str = "min") -> None:
        super().__init__(out_dim=out_dim, monitor=monitor, mode=mode)

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        if target.shape != outputs.shape:
            raise ValueError(
                f"regression targets have shape {tuple(target.shape)}, outputs "
                f"{tuple(outputs.shape)}: give {self.out_dim} values an example"
            )
        return F.mse_loss(outputs, target.to(outputs.dtype))

    def metrics(self) -> MetricCollection:
        return MetricCollection(
            {
                "mae": MeanAbsoluteError(),
                "rmse": MeanSquaredError(squared=False),
                "r2": R2Score(),
            }
        )
