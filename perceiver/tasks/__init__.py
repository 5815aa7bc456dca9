"""LightningModules, objectives and schedules."""

from perceiver.tasks.base import Task
from perceiver.tasks.objectives import (
    MultiLabel,
    Objective,
    Regression,
    SequenceObjective,
    SingleLabel,
)
from perceiver.tasks.supervised import SupervisedTask

__all__ = [
    "MultiLabel",
    "Objective",
    "Regression",
    "SequenceObjective",
    "SingleLabel",
    "SupervisedTask",
    "Task",
]
