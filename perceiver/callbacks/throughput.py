"""How many examples a second training takes in."""

from __future__ import annotations

import time
from collections.abc import Sized
from typing import Any

import pytorch_lightning as pl


class Throughput(pl.Callback):
    """Logs `train/examples_per_second` an epoch, over all processes, validation left out."""

    def __init__(self) -> None:
        self._examples, self._seconds, self._start = 0, 0.0, 0.0

    # A run that is resumed within an epoch has no start of it.
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._examples, self._seconds, self._start = 0, 0.0, time.perf_counter()

    # Validation runs inside the training epoch, perhaps several times: the clock stops for it.
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._seconds += time.perf_counter() - self._start

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Sized,
        batch_idx: int,
    ) -> None:
        self._examples += len(batch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        seconds = self._seconds + time.perf_counter() - self._start
        rate = self._examples * trainer.world_size / seconds
        pl_module.log("train/examples_per_second", rate)
