"""What models are trained for: losses, metrics and the meaning of outputs."""

from perceiver.tasks.objectives.masked_tokens import MaskedTokens
from perceiver.tasks.objectives.multi_label import MultiLabel
from perceiver.tasks.objectives.objective import Objective
from perceiver.tasks.objectives.reconstruction import Reconstruction
from perceiver.tasks.objectives.regression import Regression
from perceiver.tasks.objectives.sequence import SequenceObjective
from perceiver.tasks.objectives.single_label import SingleLabel

__all__ = [
    "MaskedTokens",
    "MultiLabel",
    "Objective",
    "Reconstruction",
    "Regression",
    "SequenceObjective",
    "SingleLabel",
]
