"""What a model has to beat: the most frequent class or the mean, and a linear model."""

from runner.baseline.baseline import Baselines, fit_baselines
from runner.baseline.of_run import baselines_of, sees_all

__all__ = ["Baselines", "baselines_of", "fit_baselines", "sees_all"]
