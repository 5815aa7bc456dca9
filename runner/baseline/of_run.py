"""Whether a run has baselines, and which."""

from __future__ import annotations

import pytorch_lightning as pl

from datamodules.core.datamodule import MultimodalDataModule
from perceiver.tasks import Task
from runner.baseline.baseline import KINDS, Baselines, fit_baselines


def sees_all(trainer: pl.Trainer) -> bool:
    """Whether training and test see whole splits: a run that tries something out does not."""
    limits = (trainer.limit_train_batches, trainer.limit_test_batches)
    return limits == (1.0, 1.0) and not trainer.overfit_batches and not trainer.fast_dev_run


def baselines_of(task: Task, datamodule: pl.LightningDataModule) -> Baselines | None:
    """What simple models reach on the splits of a run; None where there are none to compare.

    That is so where the objective makes its own targets, or answers step by step.
    """
    objective = getattr(task, "heads", {}).get(getattr(task, "monitored", ""))
    if not isinstance(datamodule, MultimodalDataModule) or objective is None:
        return None
    is_of_data = objective.target == "target" and objective.targets in KINDS
    if not is_of_data or not {"train", "test"} <= set(datamodule.splits):
        return None
    return fit_baselines(datamodule, objective)
