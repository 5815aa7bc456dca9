"""The progress bar of a training run."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar


class ProgressBar(RichProgressBar):
    """Lightning's, with the training loss read once in a while.

    A number that a GPU has yet to calculate is waited for, and while the host waits it prepares no
    further step. Lightning reads at every step what is logged with `prog_bar=True`: so log in
    training without it, and name what the bar should show. The bar itself moves with every step.

    Args:
        names: what to read of what training logs.
        seconds: from one reading to the next within an epoch; 0 = at every step.
        options: of Lightning's RichProgressBar.
    """

    def __init__(
        self, *, names: tuple[str, ...] = ("train/loss",), seconds: float = 1.0, **options: Any
    ) -> None:
        super().__init__(**options)
        self.names, self.seconds = names, seconds
        self._next, self._read = 0.0, dict[str, float]()

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """What stands beside the bar."""
        now = time.monotonic()
        if trainer.training and now >= self._next:
            logged = trainer.callback_metrics
            self._read = {name: logged[name].item() for name in self.names if name in logged}
            self._next = now + self.seconds
        return dict(super().get_metrics(trainer, pl_module)) | self._read

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._next = 0.0  # an epoch ends with the loss of its last step
        super().on_train_epoch_end(trainer, pl_module)
