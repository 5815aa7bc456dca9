"""Metrics of classes of which some may have no example in a split."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAUROC, MulticlassRecall, MultilabelAUROC
from torchmetrics.utilities.data import dim_zero_cat


class BalancedAccuracy(MulticlassRecall):
    """The mean recall of the classes that have examples."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average="none")

    def compute(self) -> Tensor:
        has_examples = torch.as_tensor(self.tp) + torch.as_tensor(self.fn) > 0
        return super().compute()[has_examples].mean()


class AUROC(MulticlassAUROC):
    """The area under the ROC curve, each class against the rest; the mean over the classes.

    A class that no example has, or every example, counts for nothing; NaN if all are such.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average="none", validate_args=False)

    def compute(self) -> Tensor:  # type: ignore[override]
        target = dim_zero_cat(self.target)
        counts = target.bincount(minlength=int(self.num_classes))
        with warnings.catch_warnings(action="ignore"):  # of classes that do not count
            areas = super().compute()
        return areas[(counts > 0) & (counts < len(target))].mean()


class LabelsAUROC(MultilabelAUROC):
    """The same of labels of which an example has any number."""

    def __init__(self, num_labels: int) -> None:
        super().__init__(num_labels, average="none", validate_args=False)

    def compute(self) -> Tensor:  # type: ignore[override]
        target = dim_zero_cat(self.target)
        with warnings.catch_warnings(action="ignore"):
            areas = super().compute()
        counts = target.sum(0)
        return areas[(counts > 0) & (counts < len(target))].mean()
