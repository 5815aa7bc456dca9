"""What all tasks share: the optimiser with its schedule, and checkpoints that say what they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.utilities import GradClipAlgorithmType
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from perceiver.tasks.draws import seed_batch
from perceiver.tasks.optimisers import parameter_groups, scale_rates
from perceiver.tasks.resuming import (
    is_between_steps,
    leave_epoch_open,
    loader_states,
    make_loader_again,
)


class Task(pl.LightningModule):
    """Base of tasks.

    What a batch draws in training (dropout, say) depends on the seed of the run, the process and
    the batch's number alone. The seed is torch's when the first fit begins, and is kept in
    checkpoints: a run that goes on draws as if it had never stopped.

    Args:
        model: what is trained.
        optimizer: makes the optimiser from parameter groups.
        scheduler: makes the schedule from (optimizer, total_steps); None = constant rate.

    Attributes:
        run_config: set it to the run's configuration as plain data, and every checkpoint holds it,
            so that the model can be rebuilt from the checkpoint alone.
        parts: what the parts of a split are that its monitored metric is reported for.
    """

    parts: str = "modalities"

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.optimizer, self.scheduler = optimizer, scheduler
        self.run_config: Mapping[str, Any] | None = None
        self._seed: int | None = None  # of what training draws
        self._stepped: list[Any] = []  # states of the loaders when the optimiser last stepped

    def configure_optimizers(self) -> Any:
        optimizer = scale_rates(self.optimizer(parameter_groups(self.model)))
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

    def on_fit_start(self) -> None:
        make_loader_again(self.trainer)

    def on_train_start(self) -> None:
        if self._seed is None:
            self._seed = torch.initial_seed()
        self._stepped = loader_states(self.trainer)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        assert self._seed is not None
        seed_batch(self._seed, self.trainer)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if is_between_steps(self.trainer):
            return
        self._stepped = loader_states(self.trainer)

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

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        seed = checkpoint.get("seed")
        self._seed = seed if type(seed) is int and seed >= 0 else self._seed

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._seed is not None:
            checkpoint["seed"] = self._seed
        if self.run_config is not None:
            checkpoint["run_config"] = dict(self.run_config)
        leave_epoch_open(checkpoint, self.trainer, self._stepped)
