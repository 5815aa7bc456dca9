"""Categories of a row → ids: a value's own, that of unknown values, or that of a missing one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from datamodules.readers.field import Field
from datamodules.readers.reader import Cell, Reader

_SAMPLE = 100_000  # rows whose values are known
_SPECIAL = 2  # ids of each column before its values': missing, unknown
_MOST = 10_000  # values of a column, the most frequent


@dataclass(frozen=True)
class CategoryReader(Reader):
    """What the categories of a row are to the model (`data.category` in the config).

    Ids count through all columns: of each, a missing value's, an unknown one's, and its values'.
    Unknown is what training does not have, or has once: so it learns what to make of such values.
    A row without any category lacks the modality.

    Args:
        values: of each column, those that have an id of their own.
        sizes: ids of each column: two more than values.
    """

    takes_columns: ClassVar[bool] = True
    is_costly: ClassVar[bool] = False
    fitted: ClassVar[tuple[str, ...]] = ("values", "sizes")

    values: tuple[tuple[str, ...], ...]
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(tuple(map(str, names)) for names in self.values))
        object.__setattr__(self, "sizes", tuple(self.sizes))
        wanted = tuple(len(names) + _SPECIAL for names in self.values)
        if self.sizes != wanted:
            raise ValueError(
                f"data.category.sizes={list(self.sizes)}, but data.category.values asks for "
                f"{list(wanted)}: two more than values of each."
            )

    @cached_property
    def _ids(self) -> list[dict[str, int]]:
        """Of each column, value → id."""
        starts = np.cumsum([_SPECIAL, *self.sizes]).tolist()
        return [
            {name: start + place for place, name in enumerate(names)} | {"": start - _SPECIAL}
            for names, start in zip(self.values, starts, strict=False)
        ]

    def field(self) -> Field:
        return Field((len(self.sizes),), dtype=torch.int64)

    def decode(self, cell: Cell, *, where: str) -> Tensor | None:
        """(columns,) int64 ids of texts, of which an empty one is missing; None if all are."""
        names = list(cell) if isinstance(cell, list | np.ndarray) else [cell]
        if len(names) != len(self.sizes):
            raise ValueError(
                f"{where} has {len(names)} categories, the model reads {len(self.sizes)}."
            )
        names = ["" if name is None else str(name).strip() for name in names]
        if not any(names):
            return None
        ids = [known.get(name, known[""] + 1) for known, name in zip(self._ids, names, strict=True)]
        return torch.tensor(ids)

    @classmethod
    def fit(cls, given: Mapping[str, Any], columns: Sequence[Sequence[Cell]]) -> dict[str, Any]:
        column = columns[0]
        step = -(-len(column) // _SAMPLE)
        counts: list[Counter[str]] = []
        for row in range(0, len(column), step):
            names = column[row]
            if names is not None:
                counts = counts or [Counter() for _ in names]
                for counter, name in zip(counts, names.tolist(), strict=True):
                    counter[name] += 1
        values = given.get("values") or [
            sorted(name for name, count in counter.most_common(_MOST) if name and count > 1)
            for counter in counts
        ]
        return {"values": values, "sizes": [len(names) + _SPECIAL for names in values]}
