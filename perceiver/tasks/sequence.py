"""The LightningModule of algorithmic sequence tasks, measured in bits per sequence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric, Metric, SumMetric

from perceiver.shapes import Bool, Float
from perceiver.tasks.base import Task
from perceiver.tasks.metrics import MetricDict
from perceiver.types import SequenceBatch

METRICS = {"bits_per_sequence": "min", "errors_per_sequence": "min", "solved": "max"}


class SequenceObjective(nn.Module):
    """How many bits the right answers of a sequence cost under the model's predictions.

    Targets are (b, t, out_dim) of 0 and 1, each a Bernoulli variable (NTM, section 4), or (b, t)
    class indices below out_dim (DNC, Methods). Both count on the scored steps alone.

    Args:
        out_dim: numbers that the model puts out a step.
        monitor: "bits_per_sequence"; "errors_per_sequence", wrong bits or classes; or "solved", the
            share of sequences without an error. Selects the best checkpoint.
        mode: "min", or "max" for "solved".

    Raises:
        ValueError: for another metric or mode; in `nats`, for outputs that do not fit the targets.
    """

    targets = "a sequence"

    def __init__(
        self, *, out_dim: int, monitor: str = "bits_per_sequence", mode: str = "min"
    ) -> None:
        super().__init__()
        if METRICS.get(monitor) != mode:
            known = ", ".join(f"{name} with {best}" for name, best in METRICS.items())
            raise ValueError(f"task.objective.monitor={monitor} with mode={mode}: choose {known}")
        self.out_dim, self.monitor, self.mode = out_dim, monitor, mode

    def nats(
        self, outputs: Float[Tensor, "b t k"], target: Tensor, scored: Bool[Tensor, "b t"]
    ) -> Float[Tensor, " b"]:
        """The cost of each sequence's answers, in nats."""
        is_bits = target.dim() == 3
        if outputs.shape[-1] != self.out_dim or (is_bits and target.shape != outputs.shape):
            raise ValueError(
                f"targets of shape {tuple(target.shape)} need outputs of width "
                f"out_dim={self.out_dim} a step; the model gives {tuple(outputs.shape)}"
            )
        wide = outputs.float() if outputs.dtype.itemsize < 4 else outputs
        if is_bits:
            costs = F.binary_cross_entropy_with_logits(wide, target.to(wide), reduction="none")
            return (costs.sum(-1) * scored).sum(-1)
        return (F.cross_entropy(wide.mT, target, reduction="none") * scored).sum(-1)

    def answers(self, outputs: Float[Tensor, "b t k"], target: Tensor) -> Tensor:
        """The likeliest bits or classes, whichever the target holds."""
        return (outputs > 0).to(target) if target.dim() == 3 else outputs.argmax(-1)

    def scores(self, outputs: Tensor, batch: SequenceBatch) -> dict[str, Float[Tensor, " b"]]:
        """Every metric of each sequence."""
        nats = self.nats(outputs, batch.target, batch.scored)
        wrong = self.answers(outputs, batch.target) != batch.target
        errors = (wrong.reshape(*batch.scored.shape, -1).sum(-1) * batch.scored).sum(-1)
        return {
            "bits_per_sequence": nats / math.log(2),
            "errors_per_sequence": errors.float(),
            "solved": (errors == 0).float(),
        }


class SequenceTask(Task):
    """Trains a recurrent model on sequences that a program could answer.

    The loss is the mean cost of an answered bit or class. Logs `train/loss` a step and, over a
    whole split, `val/bits_per_sequence`, `val/errors_per_sequence`, `val/solved`; the test also
    `test/bits_per_sequence/length_40` (and so on) for each of `longer`, which do not count towards
    `test/bits_per_sequence`.

    Args:
        model: forward(inputs (b, t, c)) → outputs (b, t, k).
        objective: the loss and the metrics.
        optimizer: makes the optimiser from parameter groups.
        scheduler: makes the schedule from (optimizer, total_steps); None = constant rate.
        longer: sizes that the test reports apart.
    """

    parts: ClassVar[str] = "lengths"

    def __init__(
        self,
        *,
        model: nn.Module,
        objective: SequenceObjective,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler] | None = None,
        longer: Sequence[int] = (),
    ) -> None:
        super().__init__(model=model, optimizer=optimizer, scheduler=scheduler)
        self.objective = objective
        self.suffixes = {size: f"/length_{size}" for size in longer}
        names = [f"val/{name}" for name in ("loss", *METRICS)]
        names += [f"test/{name}" for name in ("loss", *METRICS)]
        names += [f"test/{name}{end}" for name in METRICS for end in self.suffixes.values()]
        self.metric_names = names
        self.metrics: Mapping[str, Sequence[Metric]] = MetricDict(  # type: ignore[assignment]
            {
                "means": nn.ModuleList(MeanMetric(nan_strategy="disable") for _ in names),
                "counts": nn.ModuleList(SumMetric() for _ in names),
            }
        )

    def forward(self, batch: SequenceBatch) -> Tensor:
        """Outputs (b, t, k) of a batch: logits of bits or of classes."""
        return self.model(batch.inputs)

    def _loss(self, outputs: Tensor, batch: SequenceBatch) -> Tensor:
        answered = batch.scored.sum() * (self.objective.out_dim if batch.target.dim() == 3 else 1)
        return self.objective.nats(outputs, batch.target, batch.scored).sum() / answered

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        loss = self._loss(self(batch), batch)
        self.log("train/loss", loss, batch_size=len(batch))
        return loss

    def validation_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        self._evaluate(batch, "test", self.suffixes.get(batch.size, ""))

    def predict_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        return self.objective.answers(self(batch), batch.target)

    def _evaluate(self, batch: SequenceBatch, split: str, suffix: str = "") -> None:
        outputs = self(batch)
        values: Mapping[str, Tensor] = self.objective.scores(outputs, batch)
        if not suffix:
            values = {"loss": self._loss(outputs, batch).expand(len(batch)), **values}
        for name, value in values.items():
            index = self.metric_names.index(f"{split}/{name}{suffix}")
            self.metrics["means"][index].update(value)
            self.metrics["counts"][index].update(len(value))

    def on_validation_epoch_end(self) -> None:
        self._log_split("val/")

    def on_test_epoch_end(self) -> None:
        self._log_split("test/")

    def _log_split(self, split: str) -> None:
        """Log every metric over all processes; a length that nothing had is left out."""
        means, counts = self.metrics["means"], self.metrics["counts"]
        for name, mean, count in zip(self.metric_names, means, counts, strict=True):
            if not name.startswith(split):
                continue
            # The count is the same on every process, so that none waits for another in vain.
            count.update(0.0)
            if count.compute() > 0:
                self.log(name, mean.compute(), prog_bar=name == split + self.objective.monitor)
            mean.reset()
            count.reset()
