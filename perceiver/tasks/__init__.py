"""LightningModules, objectives and schedules."""

from perceiver.tasks.objectives import MultiLabel, Objective, Regression, SingleLabel
from perceiver.tasks.supervised import SupervisedTask

__all__ = ["MultiLabel", "Objective", "Regression", "SingleLabel", "SupervisedTask"]
