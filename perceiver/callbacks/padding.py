"""How much of what a training reads is padding."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from perceiver.types import Batch


class PaddingShare(pl.Callback):
    """Logs `train/padding/<modality>` an epoch: the share of its input that no example holds.

    An example that lacks the modality altogether is padding from end to end. Modalities that were
    never masked are left out. Counted on the first process.
    """

    def __init__(self) -> None:
        self._padding: dict[str, Tensor] = {}
        self._total: dict[str, int] = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._padding, self._total = {}, {}

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if not isinstance(batch, Batch):  # sequences of one length
            return
        for name, values in batch.inputs.items():
            self._total[name] = self._total.get(name, 0) + values.numel()
        for name, mask in batch.masks.items():
            # Stays on the device: to ask for a number would stall the queue.
            padding = (~mask).sum(dtype=torch.float64) * (batch.inputs[name].numel() / mask.numel())
            self._padding[name] = self._padding.get(name, 0) + padding

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, padding in self._padding.items():
            pl_module.log(f"train/padding/{name}", (padding / self._total[name]).float())
