"""What a split holds, in words."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from datamodules.readers.reader import span
from perceiver.names import shown

_IMBALANCED = 10  # times the examples of the smallest class


def describe_targets(targets: Tensor, names: Sequence[str]) -> str:
    """How many examples each class or label has, or the range of each value."""
    if targets.is_floating_point():
        told = [
            f"{shown(name)} {span(targets[:, n].tolist())}" for n, name in enumerate(names[:12])
        ]
        return ", ".join(told) + (" …" if len(names) > 12 else "")
    if targets.ndim == 1:
        counts, what = targets.bincount(minlength=len(names)).tolist(), "classes"
    else:
        counts, what = targets.sum(0).tolist(), "labels"
    if len(names) <= 12:
        return ", ".join(
            f"{shown(name)} {count}" for name, count in zip(names, counts, strict=True)
        )
    return f"{len(names)} {what} of {min(counts)} to {max(counts)}"


def describe_imbalance(counts: Sequence[int], names: Sequence[str]) -> list[str]:
    """A line of advice where some class has more than ten times the examples of another."""
    known = [(count, name) for count, name in zip(counts, names, strict=True) if count]
    if not known or max(known)[0] <= _IMBALANCED * min(known)[0]:
        return []
    (most, large), (least, small) = max(known), min(known)
    return [
        f"{'':5} imbalanced: {most:,} of {large}, {least:,} of {small}; "
        "task.objective.class_weights=balanced or data.sampler=balanced makes rare classes count "
        "more, task.objective.monitor=balanced_acc chooses by all classes alike"
    ]
