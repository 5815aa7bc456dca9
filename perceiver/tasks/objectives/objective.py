"""What a model is trained for: the base of objectives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from perceiver.shapes import Bool, Float
from perceiver.types import Batch, TargetKind


def widened(outputs: Tensor) -> Tensor:
    """Losses are computed in float32 at least: half precision would round the targets."""
    return outputs.float() if outputs.dtype.itemsize < 4 else outputs


class Objective(nn.Module, ABC):
    """Base of objectives: the loss, the metrics and the meaning of a model's outputs.

    A model gives outputs (b, o, k). Where o is 1 the target is the example's, (b,) or (b, k);
    where o is the length of a text or the pixels of a picture, each output has a target of its
    own, (b, o) or (b, o, k). A subclass writes what one answer costs; the loss of an example is
    the mean cost of its answers whose targets are known.

    `targets` says what the target is; None where the objective makes its own of the inputs.

    Args:
        out_dim: numbers of an output, k.
        monitor: the metric that selects the best checkpoint and that subsets are reported in.
        mode: "max" or "min", which of its values is best.
        target: which of the batch's targets it reads.

    Raises:
        ValueError: for a metric that the objective does not have.
    """

    targets: ClassVar[TargetKind | None]

    def __init__(self, *, out_dim: int, monitor: str, mode: str, target: str = "target") -> None:
        super().__init__()
        self.out_dim, self.monitor, self.mode, self.target = out_dim, monitor, mode, target
        known = [str(name) for name in self.metrics()]
        if monitor not in known or mode not in ("max", "min"):
            raise ValueError(
                f"task.objective.monitor={monitor} with mode={mode}: choose a metric of "
                f"{', '.join(known)}, and max or min"
            )

    def prepare(self, batch: Batch) -> Batch:
        """The batch to train and evaluate on; here the one given.

        An objective that makes its targets of the inputs, or hides part of them, returns another
        batch and leaves this one as it is. In evaluation it draws the same every time.
        """
        return batch

    @abstractmethod
    def costs(self, outputs: Float[Tensor, "n k"], target: Tensor) -> Float[Tensor, " n"]:
        """What each answer costs, given targets (n,) or (n, k)."""

    def check_shape(self, outputs: Float[Tensor, "n k"], target: Tensor) -> None:
        """Raises ValueError for targets of another shape or type than the outputs call for."""
        return

    def check_values(self, target: Tensor) -> None:
        """Raises ValueError for known targets (n,) or (n, k) that make no sense."""
        return

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Fresh metrics; see `update`."""

    def test_metrics(self) -> MetricCollection:
        """Fresh metrics of the test: those of every epoch, and what is worth its time once."""
        return self.metrics()

    def monitored(self) -> Metric:
        """A fresh metric of the kind that is monitored."""
        return self.metrics()[self.monitor]

    def score(self, values: Mapping[str, Tensor]) -> Tensor:
        """What the best epoch is chosen by: the higher, the better; here the loss, negated.

        Args:
            values: the loss and the metrics of the validation split, and its number of `examples`.
        """
        return -values["loss"]

    def predict(self, outputs: Float[Tensor, "*b k"], batch: Batch | None = None) -> Tensor:
        """Outputs as a person would read them: probabilities, or values."""
        return outputs

    def metric_target(self, target: Tensor) -> Tensor:
        """Targets (n,) or (n, k) as the metrics take them."""
        return target

    def is_dense(self, target: Tensor) -> bool:
        """Whether a target has the shape of one an output, not one an example."""
        return target.dim() == 3

    def answered(self, batch: Batch) -> Bool[Tensor, " b"]:
        """Which examples have the target; the others are left out of the loss and the metrics.

        Raises:
            ValueError: the batch says nothing of the target.
        """
        known = batch.known.get(self.target)
        if known is not None:
            return known if known.dim() == 1 else known.any(1)
        target = self._wanted(batch)
        assert target is not None, "without a tensor it is in `known`"
        return torch.ones(len(target), dtype=torch.bool, device=target.device)

    def losses(self, outputs: Float[Tensor, "b o k"], batch: Batch) -> Float[Tensor, " b"]:
        """The loss of each example: 0, without a gradient, where it lacks the target.

        Raises:
            ValueError: for targets that the outputs do not fit, or that make no sense.
        """
        target = self._wanted(batch)
        if target is None:
            return (outputs * 0.0).flatten(1).sum(1)
        outputs, target = self._paired(outputs, target)
        b, o, _ = outputs.shape
        known = self._known(batch, b, o)
        if known is not None:
            target = target.masked_fill(~known.view(b, o, *[1] * (target.dim() - 2)), 0)
        flat = target.flatten(0, 1)
        self.check_shape(outputs.flatten(0, 1), flat)
        if target.device.type == "cpu":  # on a GPU it would stall the queue
            self.check_values(flat if known is None else flat[known.flatten()])
        costs = self.costs(outputs.flatten(0, 1), flat).view(b, o)
        if known is None:
            return costs.mean(1)
        return costs.masked_fill(~known, 0.0).sum(1) / known.sum(1).clamp(min=1)

    def loss(self, outputs: Float[Tensor, "b o k"], batch: Batch) -> Float[Tensor, ""]:
        """The loss, averaged over the examples that have the target; 0 if none has."""
        answered = self.answered(batch)
        return self.losses(outputs, batch).sum() / answered.sum().clamp(min=1)

    def update(
        self,
        metrics: MetricCollection,
        outputs: Float[Tensor, "b o k"],
        batch: Batch,
        some: Bool[Tensor, " b"],
    ) -> None:
        """Add the known targets of some examples, and what was answered, to the metrics.

        Args:
            metrics: those of `metrics()`, or some of them.
            outputs: of the model.
            batch: whose targets they are held against.
            some: which examples count.
        """
        target = self._wanted(batch)
        assert target is not None, "examples that count have targets"
        outputs, target = self._paired(outputs, target)
        known = self._known(batch, *outputs.shape[:2])
        chosen = some[:, None].expand(outputs.shape[:2])
        chosen = chosen if known is None else chosen & known
        predictions = self.predict(outputs[chosen], batch)
        predictions = predictions.float() if predictions.is_floating_point() else predictions
        metrics.update(predictions, self.metric_target(target[chosen]))

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

    def _wanted(self, batch: Batch) -> Tensor | None:
        """The target; None where no example has it."""
        if self.target in batch.targets:
            return batch.targets[self.target]
        if self.target in batch.known:
            return None
        name = "" if self.target == "target" else f" {self.target!r}"
        raise ValueError(f"the batch has no target{name}, which training and evaluation need")

    def _paired(self, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (b, o, k) and targets (b, o) or (b, o, k)."""
        is_one = outputs.shape[1] == 1 and target.shape[1:2] != (1,)
        if is_one or not self.is_dense(target):
            return self.single_output(outputs)[:, None], target[:, None]
        if outputs.dim() != 3 or (*target.shape[:2], self.out_dim) != outputs.shape:
            raise ValueError(
                f"{type(self).__name__} needs outputs of width out_dim={self.out_dim} for targets "
                f"of shape {tuple(target.shape)}; the model gives {tuple(outputs.shape)}"
            )
        return outputs, target

    def _known(self, batch: Batch, b: int, o: int) -> Bool[Tensor, "b o"] | None:
        known = batch.known.get(self.target)
        if known is None:
            return None
        return known[:, None].expand(b, o) if known.dim() == 1 else known


def metric_then_loss(values: Mapping[str, Tensor], monitor: str, mode: str) -> Tensor:
    """A score for which the metric counts, and where that is too coarse to tell, the loss.

    The loss of classifiers goes on rising where they grow sure of their errors, while their
    accuracy rises as well. But accuracies of n examples that differ by less than 1 / sqrt(n), about
    a standard error, may be equal: by so much the probability that the loss stands for counts.

    Args:
        values: the loss and the metrics of a split, and its number of `examples`.
        monitor: the metric.
        mode: "max" or "min", which of its values is best.
    """
    best = values[monitor] if mode == "max" else -values[monitor]
    return best + torch.exp(-values["loss"]) / values["examples"].clamp(min=1).sqrt()
