"""LightningModules, objectives and schedules."""

from perceiver.tasks.base import Task
from perceiver.tasks.objectives import MultiLabel, Objective, Regression, SingleLabel
from perceiver.tasks.sequence import SequenceObjective, SequenceTask
from perceiver.tasks.supervised import SupervisedTask

__all__ = [
    "MultiLabel",
    "Objective",
    "Regression",
    "SequenceObjective",
    "SequenceTask",
    "SingleLabel",
    "SupervisedTask",
    "Task",
]
