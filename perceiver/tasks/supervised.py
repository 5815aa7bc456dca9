"""The LightningModule of supervised training: any objective over any Perceiver."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from perceiver.attention import ReinforceLoss, SampledChoices
from perceiver.tasks.base import Task
from perceiver.tasks.metrics import SplitMetrics
from perceiver.tasks.objectives import Objective
from perceiver.tasks.subsets import modality_subsets, restrict
from perceiver.types import Batch


def _target(batch: Batch) -> Tensor:
    if batch.target is None:
        raise ValueError("the batch has no target, which training and evaluation need")
    return batch.target


class SupervisedTask(Task):
    """Trains a model to predict a target from whatever modalities an example has.

    Logs `train/loss` a step (and `train/reinforce`, what sampled attention adds to it) and, over a
    whole split, `val/loss`, `val/acc` (or the objective's other metrics) and `val/acc/image+text`
    for subsets of the modalities: the same model, given those alone, over the examples that have at
    least one of them.

    Args:
        model: forward(inputs, masks, present) → outputs (b, 1, k); `Perceiver` or one's own.
        objective: loss, metrics and predictions.
        optimizer: makes the optimiser from parameter groups.
        scheduler: makes the schedule from (optimizer, total_steps); None = constant rate.
        modalities: names in the order in which reports list them.
        val_subsets: which subsets of the modalities validation reports: "all", "single", "none".
        test_subsets: the same for the test.
        reinforce: what trains attention that samples (the normaliser `reinforce`), from each
            example's loss; None = with its defaults. A model without such attention has no use for
            it.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        objective: Objective,
        optimizer: Callable[..., Optimizer],
        modalities: list[str],
        scheduler: Callable[..., LRScheduler] | None = None,
        val_subsets: str = "single",
        test_subsets: str = "all",
        reinforce: ReinforceLoss | None = None,
    ) -> None:
        super().__init__(model=model, optimizer=optimizer, scheduler=scheduler)
        self.objective = objective
        self.choices = SampledChoices(model)
        self.reinforce = (reinforce or ReinforceLoss()) if self.choices else None
        self.subsets = {
            "val": modality_subsets(modalities, val_subsets),
            "test": modality_subsets(modalities, test_subsets),
        }
        self.metrics: Mapping[str, SplitMetrics] = nn.ModuleDict(  # type: ignore[assignment]
            {
                split: SplitMetrics(objective=objective, subsets=["+".join(s) for s in subsets])
                for split, subsets in self.subsets.items()
            }
        )

    def forward(self, batch: Batch) -> Tensor:
        """Outputs (b, k) of a batch, before `objective.predict`."""
        outputs = self.model(batch.inputs, batch.masks, batch.present)
        return self.objective.single_output(outputs)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        with self.choices as choices:
            losses = self.objective.losses(self(batch), _target(batch))
        loss = losses.mean()
        self.log("train/loss", loss, batch_size=len(batch))
        if self.reinforce is None:
            return loss
        of_choices = self.reinforce(-losses, choices)
        self.log("train/reinforce", of_choices, batch_size=len(batch))
        return loss + of_choices

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._evaluate(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.objective.predict(self(batch))

    def _evaluate(self, batch: Batch, split: str) -> Tensor:
        outputs, target, metrics = self(batch), _target(batch), self.metrics[split]
        predictions = self.objective.predict(outputs)
        metrics.update(self.objective.loss(outputs, target), predictions, target)
        for subset in self.subsets[split]:
            part = restrict(batch, subset)
            some = batch.has_any(subset)
            answers = self.objective.predict(self(part))
            metrics.update_subset("+".join(subset), answers[some], target[some])
        return predictions

    def on_validation_epoch_end(self) -> None:
        self._log_split("val")

    def on_test_epoch_end(self) -> None:
        self._log_split("test")

    def _log_split(self, split: str) -> None:
        for name, value in self.metrics[split].compute().items():
            self.log(f"{split}/{name}", value, prog_bar=name in ("loss", self.objective.monitor))
        self.metrics[split].reset()
