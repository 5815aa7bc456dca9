"""What a data set turns out to be, as plain data; a config is resolved against it once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from perceiver.types import TargetKind


@dataclass(frozen=True)
class DataFacts:
    """What is known of a data set once it has been opened.

    Args:
        targets: what an example's target is.
        class_names: of the classes, labels or values, in the order of their indices.
        num_examples: split → how many.
        class_counts: training examples of each class; None where targets are no classes.
        options: the data set's options that say what it is: modalities, num_classes, batch_size,
            and those that were null, such as sizes, rates, lengths and columns.
        target_mean: of each value over the training examples; None where targets are no values.
        target_std: likewise, 1 of a value that is always the same.
    """

    targets: TargetKind
    class_names: Sequence[str] = ()
    num_examples: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    class_counts: Sequence[int] | None = None
    target_mean: Sequence[float] | None = None
    target_std: Sequence[float] | None = None
