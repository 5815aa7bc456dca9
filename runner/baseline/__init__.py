"""What a model has to beat: the most frequent class or the mean, and a linear model."""

from runner.baseline.baseline import KINDS, Baselines, fit_baselines

__all__ = ["KINDS", "Baselines", "fit_baselines"]
