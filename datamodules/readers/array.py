"""Numbers of a row → standardised tensors; a missing number is the mean, and marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from datamodules.readers.field import Field
from datamodules.readers.reader import Cell, Reader

_SAMPLE = 100_000  # rows whose mean and deviation stand for all


@dataclass(frozen=True)
class ArrayReader(Reader):
    """What the numbers of a row are to the model (`data.array` in the config).

    Each number is an element of two channels: its value, standardised, and 1 where it is missing
    (its value is then 0, the mean). A row without any number lacks the modality.

    Args:
        length: numbers in a row.
        mean: of each over the training split.
        std: standard deviation of each over the training split.
    """

    is_costly: ClassVar[bool] = False
    fitted: ClassVar[tuple[str, ...]] = ("length", "mean", "std")

    length: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            if len(getattr(self, name)) != self.length:
                raise ValueError(
                    f"data.array.{name} has {len(getattr(self, name))} numbers, "
                    f"data.array.length={self.length}: give one for each."
                )
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        if min(self.std, default=1.0) <= 0:
            raise ValueError(f"data.array.std={list(self.std)}, expected numbers above 0.")

    def field(self) -> Field:
        return Field((self.length, 2))

    def decode(self, cell: Cell, *, where: str) -> Tensor | None:
        """(length, 2) float32 of `length` numbers in which NaN is missing; None if all are."""
        try:
            values = np.asarray(cell, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where} is not a list of numbers.") from error
        if values.shape != (self.length,):
            raise ValueError(
                f"{where} has {values.size} numbers, the model reads {self.length} "
                "(data.array.length)."
            )
        if np.isinf(values).any():
            raise ValueError(f"{where} holds an infinite number: repair or empty the cell.")
        missing = np.isnan(values)
        if missing.all():
            return None
        scaled = np.where(missing, 0.0, (values - self.mean) / self.std)
        return torch.from_numpy(np.stack([scaled, missing], axis=1).astype(np.float32))

    @classmethod
    def fit(cls, given: Mapping[str, Any], columns: Sequence[Sequence[Cell]]) -> dict[str, Any]:
        values = _values(columns)
        with np.errstate(all="ignore"):
            mean, std = (
                _ignoring_nan(np.nanmean, values, 0.0),
                _ignoring_nan(np.nanstd, values, 1.0),
            )
        # A number that never changes says nothing; dividing by 1 keeps it finite. Rounding leaves
        # its deviation a little above zero.
        std = np.where(std > 1e-8 * np.abs(mean), std, 1.0)
        found = {"length": values.shape[1], "mean": mean.tolist(), "std": std.tolist()}
        return {name: found[name] if given.get(name) is None else given[name] for name in found}


def _values(columns: Sequence[Sequence[Cell]]) -> np.ndarray:
    column = columns[0]
    step = -(-len(column) // _SAMPLE)
    rows = [
        np.asarray(column[i], dtype=float)
        for i in range(0, len(column), step)
        if column[i] is not None
    ]
    return np.stack(rows)


def _ignoring_nan(function: Any, values: np.ndarray, default: float) -> np.ndarray:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column of NaN alone
        found = function(np.where(np.isfinite(values), values, np.nan), axis=0)
    return np.where(np.isfinite(found), found, default)
