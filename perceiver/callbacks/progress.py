"""The progress bar of a training run."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar


class ProgressBar(RichProgressBar):
    """Lightning's; its numbers are read once in a while, where Lightning's own wait for every step.

    A number that a GPU has yet to calculate is waited for, and while the host waits it prepares no
    further step. The bar itself moves with every step.

    Args:
        seconds: from one reading to the next within an epoch; 0 = at every step.
        options: of Lightning's RichProgressBar.
    """

    def __init__(self, *, seconds: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.seconds = seconds
        self._next, self._numbers = 0.0, dict[str, Any]()

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """What stands beside the bar: fresh at the end of an epoch and of validation."""
        now = time.monotonic()
        if now >= self._next or not trainer.training or trainer.is_last_batch:
            self._numbers = dict(super().get_metrics(trainer, pl_module))
            self._next = now + self.seconds
        return self._numbers
