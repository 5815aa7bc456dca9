"""LightningModules, objectives and schedules."""

from perceiver.tasks import objectives
from perceiver.tasks.base import Task
from perceiver.tasks.objectives import *  # noqa: F403  a new objective is exported there alone
from perceiver.tasks.supervised import SupervisedTask

__all__ = ["SupervisedTask", "Task"]
__all__ += objectives.__all__
