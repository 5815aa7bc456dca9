"""The LightningModule of supervised training: any objective over any Perceiver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.utilities import GradClipAlgorithmType
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from perceiver.tasks.metrics import SplitMetrics
from perceiver.tasks.objectives import Objective
from perceiver.tasks.optimisers import parameter_groups
from perceiver.tasks.subsets import modality_subsets, restrict
from perceiver.types import Batch


def _target(batch: Batch) -> Tensor:
    if batch.target is None:
        raise ValueError("the batch has no target, which training and evaluation need")
    return batch.target


class SupervisedTask(pl.LightningModule):
    """Trains a model to predict a target from whatever modalities an example has.

    Logs `train/loss` a step and, over a whole split, `val/loss`, `val/acc` (or the objective's
    other metrics) and `val/acc/image+text` for subsets of the modalities: the same model, given
    those alone, over the examples that have at least one of them.

    Args:
        model: forward(inputs, masks, present) → outputs (b, 1, k); `Perceiver` or one's own.
        objective: loss, metrics and predictions.
        optimizer: makes the optimiser from parameter groups.
        scheduler: makes the schedule from (optimizer, total_steps); None = constant rate.
        modalities: names in the order in which reports list them.
        val_subsets: which subsets of the modalities validation reports: "all", "single", "none".
        test_subsets: the same for the test.

    Attributes:
        run_config: set it to the run's configuration as plain data, and every checkpoint holds it,
            so that the model can be rebuilt from the checkpoint alone.
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
    ) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.optimizer, self.scheduler = optimizer, scheduler
        self.run_config: Mapping[str, Any] | None = None
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
        loss = self.objective.loss(self(batch), _target(batch))
        self.log("train/loss", loss, batch_size=len(batch), prog_bar=True)
        return loss

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

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(parameter_groups(self.model))
        if self.scheduler is None:
            return optimizer
        total_steps = self.trainer.estimated_stepping_batches
        if total_steps == float("inf"):
            raise ValueError(
                "a schedule needs the run's length: set trainer.max_epochs or trainer.max_steps"
            )
        scheduler = self.scheduler(optimizer, int(total_steps))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        precision = self.trainer.precision_plugin
        if isinstance(precision, MixedPrecision) and precision.scaler is None:
            # Lightning refuses fused optimisers in any mixed precision, lest they unscale gradients
            # after clipping; bfloat16 has no loss scale.
            clip = super(MixedPrecision, precision).clip_gradients
            algorithm = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
            clip(optimizer, gradient_clip_val or 0.0, algorithm)
            return
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.run_config is not None:
            checkpoint["run_config"] = dict(self.run_config)
