"""Real values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError, R2Score

from perceiver.tasks.objectives.objective import Objective, widened
from perceiver.types import Batch, TargetKind


class R2(R2Score):
    """The share of the targets' variance that is explained; NaN for fewer than two examples."""

    def compute(self) -> Tensor:
        return super().compute() if self.total > 1 else self.residual.mean() * torch.nan


class Regression(Objective):
    """`out_dim` real values: mean squared error; reported MAE, RMSE and R².

    Targets are (b, out_dim), or (b, o, out_dim) for each of o outputs. The model predicts them
    standardised, so that values of any unit are learned alike; predictions and metrics are in the
    targets' own units.

    Args:
        out_dim: values.
        monitor: "mae", "rmse" or "r2".
        mode: "min" or "max".
        mean: of each value over the training examples; None = 0.
        std: standard deviation of each; None = 1.
        target: which of the batch's targets it reads.

    Raises:
        ValueError: for means or deviations that are not `out_dim` numbers, or not above 0; in
            `losses`, for targets of another shape.
    """

    targets: ClassVar[TargetKind | None] = TargetKind.VALUES
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
        target: str = "target",
    ) -> None:
        super().__init__(out_dim=out_dim, monitor=monitor, mode=mode, target=target)
        mean, std = mean or [0.0] * out_dim, std or [1.0] * out_dim
        if len(mean) != out_dim or len(std) != out_dim or min(std) <= 0:
            raise ValueError(
                f"task.objective.mean={[*mean]} and std={[*std]}: give {out_dim} numbers each, "
                "deviations above 0"
            )
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def check_shape(self, outputs: Tensor, target: Tensor) -> None:
        if target.shape != outputs.shape:
            raise ValueError(
                f"regression targets have shape {tuple(target.shape)}, outputs "
                f"{tuple(outputs.shape)}: give {self.out_dim} values an example"
            )

    def costs(self, outputs: Tensor, target: Tensor) -> Tensor:
        wide = widened(outputs)
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

    def predict(self, outputs: Tensor, batch: Batch | None = None) -> Tensor:
        return outputs.float() * self.std + self.mean
