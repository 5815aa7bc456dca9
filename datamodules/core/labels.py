"""Labels by name → targets by index."""

from __future__ import annotations

from itertools import compress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.core.rows import Rows
from perceiver.types import TargetKind


def encode_labels(rows: Rows, splits: np.ndarray, targets: TargetKind) -> tuple[list[str], Tensor]:
    """The names of classes, labels or values, and the targets of all rows.

    Raises:
        ValueError: an example has a label that is none of the classes; the message names it.
    """
    labels = rows.labels
    if targets == TargetKind.VALUES:
        values = torch.as_tensor(np.asarray(labels, dtype=np.float32))
        return list(rows.classes or [f"value {n}" for n in range(values.shape[1])]), values
    several = targets == TargetKind.LABELS
    if rows.classes is not None:
        classes = [str(name) for name in rows.classes]
    else:
        train = compress(labels, (splits == "train").tolist())
        classes = sorted_labels(set().union(*train) if several else set(train))
    indices = {name: index for index, name in enumerate(classes)}
    distinct = set().union(*labels) if several else set(labels)
    known = {name: indices.get(str(name)) for name in distinct}  # one string per class
    if None in known.values():
        row, name = next(
            (row, name)
            for row, label in enumerate(labels)
            for name in (label if several else (label,))
            if known[name] is None
        )
        shown = classes if len(classes) <= 20 else [*classes[:20], "…"]
        raise ValueError(
            f"{rows.ids[row]}: unknown label {str(name)!r}, the classes are {shown}: "
            "repair the label or list it in data.classes."
        )
    if not several:
        return classes, torch.tensor([known[label] for label in labels], dtype=torch.int64)
    encoded = np.zeros((len(labels), len(classes)), dtype=np.int64)
    for row, label in enumerate(labels):
        encoded[row, [known[name] for name in label]] = 1
    return classes, torch.from_numpy(encoded)


def sorted_labels(labels: set[Any]) -> list[str]:
    """Integers by value ("10" after "9"), anything else by letter."""
    names = {str(label) for label in labels}
    numeric = all(name.removeprefix("-").isdecimal() for name in names)
    return sorted(names, key=lambda name: (int(name) if numeric else 0, name))


def read_targets_option(option: str | None) -> TargetKind | None:
    """What `data.targets` means; None = it is left open.

    Raises:
        ValueError: no rows have such targets.
    """
    known = TargetKind.options()
    if option not in (None, *known):
        raise ValueError(f"data.targets={option}, expected one of {', '.join(known)}.")
    return None if option is None else known[option]
