"""How much of what a training reads is padding."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from perceiver.types import Batch


class PaddingShare(pl.Callback):
    """Logs `train/padding/<modality>` an epoch: the share of its input that no example holds.

    Examples that lack the modality altogether do not count. Modalities that were never masked are
    left out. Counted on the first process.
    """

    def __init__(self) -> None:
        self._padding: dict[str, Tensor] = {}
        self._total: dict[str, Tensor] = {}

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
        # Tensors stay on the device: to ask for a number would stall the queue.
        for name, values in batch.inputs.items():
            here = batch.has_any([name]).sum() * (values.numel() // len(batch))
            self._total[name] = self._total.get(name, 0) + here
        for name, mask in batch.masks.items():
            padding = ~mask.flatten(1) & batch.has_any([name])[:, None]
            size = batch.inputs[name].numel() // max(1, mask.numel())
            self._padding[name] = self._padding.get(name, 0) + padding.sum() * size

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, padding in self._padding.items():
            pl_module.log(f"train/padding/{name}", padding / self._total[name].clamp(min=1))
