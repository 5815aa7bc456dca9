"""The examples of a split as a baseline reads them: texts as texts, the rest as tensors."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.core.bad_examples import BadExamples
from datamodules.core.dataset import Split
from datamodules.core.decoding import decode_all
from datamodules.loading.seeding import generator
from datamodules.readers import kind_of

_AT_ONCE = 256  # examples


@dataclass
class Read:
    """Some examples of a split.

    Args:
        inputs: modality → a value per example: a text, bytes or a file of text, else a tensor;
            None where the example lacks the modality.
        targets: (n,) or (n, k).
    """

    inputs: dict[str, list[Any]]
    targets: Tensor
    total: int = field(default=0)

    def __len__(self) -> int:
        return len(self.targets)


def read(split: Split, *, most: int, seconds: float) -> Read:
    """Some examples as the split holds them: nothing is augmented, nothing transformed.

    Args:
        split: the examples; one whose examples are drawn gives those of its first epoch, which in
            evaluation is every epoch.
        most: how many, at random; the same ones every time.
        seconds: reading stops after so long, with what there is.
    """
    rows = generator(split.seed, len(split)).permutation(len(split))[:most]
    inputs: dict[str, list[Any]] = {name: [] for name in split.modalities}
    end, done = time.monotonic() + seconds, 0
    while done < len(rows) and (done == 0 or time.monotonic() < end):
        part = rows[done : done + _AT_ONCE].tolist()
        for name, values in _values(split, part).items():
            inputs[name] += values
        done += len(part)
    kept = torch.from_numpy(rows[:done])
    return Read(inputs, split.source.targets[kept], total=len(split))


def _values(split: Split, rows: Sequence[int]) -> dict[str, list[Any]]:
    source = split.source
    if source.is_drawn:
        drawn = [source.read(row, generator(split.seed, 0, row)) for row in rows]
        cells = {name: [each.get(name) for each in drawn] for name in split.modalities}
    else:
        cells = {name: list(source.columns[name].cells(rows)) for name in split.modalities}
    for place, column in np.argwhere(split.lacking[list(rows)]).tolist():
        cells[split.modalities[column]][place] = None
    texts = {name: column for name, column in cells.items() if kind_of(name) == "text"}
    decoded = decode_all(
        {name: column for name, column in cells.items() if name not in texts},
        readers={name: reader for name, reader in split.readers.items() if name not in texts},
        ids=[source.ids[row] for row in rows],
        # What is broken was reported when the model read it, and counts once.
        bad_examples=None if split.bad_examples is None else BadExamples(budget=1.0, total=2**62),
    )
    return {name: texts.get(name, decoded.get(name)) for name in split.modalities}
