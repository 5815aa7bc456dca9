"""Answers step by step, measured in bits per sequence."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanMetric, Metric, MetricCollection

from perceiver.shapes import Bool, Float
from perceiver.tasks.objectives.objective import Objective, widened
from perceiver.types import Batch, TargetKind

METRICS = {"bits_per_sequence": "min", "errors_per_sequence": "min", "solved": "max"}


class SequenceObjective(Objective):
    """How many bits the right answers of a sequence cost under the model's predictions.

    Targets are (b, t, out_dim) of 0 and 1, each a Bernoulli variable (NTM, section 4), or (b, t)
    class indices below out_dim (DNC, Methods). Both count on the steps alone where they are known.
    The loss is the mean cost of an answered bit or class.

    Args:
        out_dim: numbers that the model puts out a step.
        monitor: "bits_per_sequence"; "errors_per_sequence", wrong bits or classes; or "solved", the
            share of sequences without an error. Selects the best checkpoint.
        mode: "min", or "max" for "solved".
        target: which of the batch's targets it reads.

    Raises:
        ValueError: for another metric or mode; for outputs that do not fit the targets.
    """

    targets = TargetKind.SEQUENCE

    def __init__(
        self,
        *,
        out_dim: int,
        monitor: str = "bits_per_sequence",
        mode: str = "min",
        target: str = "target",
    ) -> None:
        if METRICS.get(monitor) != mode:
            known = ", ".join(f"{name} with {best}" for name, best in METRICS.items())
            raise ValueError(f"task.objective.monitor={monitor} with mode={mode}: choose {known}")
        super().__init__(out_dim=out_dim, monitor=monitor, mode=mode, target=target)

    def is_dense(self, target: Tensor) -> bool:
        return True

    def costs(self, outputs: Float[Tensor, "n k"], target: Tensor) -> Float[Tensor, " n"]:
        wide = widened(outputs)
        if target.dim() == 2:
            return F.binary_cross_entropy_with_logits(wide, target.to(wide), reduction="none").mean(
                -1
            )
        return F.cross_entropy(wide, target, reduction="none")

    def metrics(self) -> MetricCollection:
        means: dict[str, Metric | MetricCollection] = {
            name: MeanMetric(nan_strategy="disable") for name in METRICS
        }
        return MetricCollection(means, compute_groups=False)

    def predict(self, outputs: Float[Tensor, "b t k"], batch: Batch | None = None) -> Tensor:
        """The likeliest bits or classes, whichever the batch's target holds."""
        target = None if batch is None else self._wanted(batch)
        if target is None:
            raise ValueError("whether bits or classes are answered is known of a target alone")
        return (outputs > 0).to(target) if target.dim() == 3 else outputs.argmax(-1)

    def scores(self, outputs: Tensor, batch: Batch) -> dict[str, Float[Tensor, " b"]]:
        """Every metric of each sequence."""
        target = self._wanted(batch)
        assert target is not None, "sequences that are scored have targets"
        outputs, target = self._paired(outputs, target)
        scored = self._known(batch, *target.shape[:2])
        known = target.new_ones(target.shape[:2]).bool() if scored is None else scored
        wrong = self.predict(outputs, batch) != target
        errors = (wrong.reshape(*known.shape, -1).sum(-1) * known).sum(-1)
        answers = known.sum(-1) * (self.out_dim if target.dim() == 3 else 1)
        return {
            "bits_per_sequence": self.losses(outputs, batch) * answers / math.log(2),
            "errors_per_sequence": errors.float(),
            "solved": (errors == 0).float(),
        }

    def update(
        self,
        metrics: MetricCollection,
        outputs: Float[Tensor, "b t k"],
        batch: Batch,
        some: Bool[Tensor, " b"],
    ) -> None:
        scores = self.scores(outputs, batch)
        for name, metric in metrics.items():
            metric.update(scores[name][some])

    def _paired(self, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        fits = (*target.shape[:2], self.out_dim) == outputs.shape
        if not fits or (target.dim() == 3 and target.shape != outputs.shape):
            raise ValueError(
                f"targets of shape {tuple(target.shape)} need outputs of width "
                f"out_dim={self.out_dim} a step; the model gives {tuple(outputs.shape)}"
            )
        return outputs, target
