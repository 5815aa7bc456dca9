"""LightningModules, objectives and schedules."""

from perceiver.tasks.base import Task
from perceiver.tasks.objectives import (
    MaskedTokens,
    MultiLabel,
    Objective,
    Reconstruction,
    Regression,
    SequenceObjective,
    SingleLabel,
)
from perceiver.tasks.supervised import SupervisedTask

__all__ = [
    "MaskedTokens",
    "MultiLabel",
    "Objective",
    "Reconstruction",
    "Regression",
    "SequenceObjective",
    "SingleLabel",
    "SupervisedTask",
    "Task",
]
