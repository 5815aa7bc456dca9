"""The gradient's norm, logged as the optimiser is about to use it."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch.optim import Optimizer


class GradientNorm(pl.Callback):
    """Logs `train/grad_norm`, the 2-norm over all parameters before clipping.

    Args:
        every_n_steps: steps between two logs; the norm is a pass over all gradients. The trainer's
            `log_every_n_steps`, or a divisor of it, gives loggers the norm of the step they log.

    Raises:
        ValueError: for less than one step.
    """

    def __init__(self, *, every_n_steps: int = 10) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps} must be at least 1")
        self.every_n_steps = every_n_steps

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        if (trainer.global_step + 1) % self.every_n_steps:
            return
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        pl_module.log("train/grad_norm", torch.nn.utils.get_total_norm(gradients))
