"""Numbers of a row → standardised tensors; a missing number is the mean, and marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from datamodules.readers.field import Field
from datamodules.readers.reader import Cell, Reader

_SAMPLE = 100_000  # rows whose mean and deviation stand for all
_FAR = 8.0  # deviations from the mean that a column without outliers does not reach
_SKEW = 2.0
_KNOTS = 64  # of a curve, at most
_LARGEST = 1e6  # standardised; what is beyond it in other rows would not be finite for long

Curve = tuple[tuple[float, ...], tuple[float, ...]]  # values, their normal scores


@dataclass(frozen=True)
class ArrayReader(Reader):
    """What the numbers of a row are to the model (`data.array` in the config).

    Each number is an element of two channels: its value, standardised, and 1 where it is missing
    (its value is then 0, the mean). A row without any number lacks the modality.

    Numbers that are skewed or hold outliers are transformed by their quantiles instead, to what is
    about standard normal over the training split: however far an outlier lies, the others keep
    apart. Other rows' values beyond the training split's are as its outermost.

    Args:
        length: numbers in a row.
        mean: of each over the training split.
        std: standard deviation of each over the training split.
        curves: of each that quantiles transform, values in rising order and their normal scores,
            linear between them; None of the others.
    """

    takes_columns: ClassVar[bool] = True
    is_costly: ClassVar[bool] = False
    fitted: ClassVar[tuple[str, ...]] = ("length", "mean", "std")

    length: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    curves: tuple[Curve | None, ...] | None = None

    def __post_init__(self) -> None:
        curves = (None,) * self.length if self.curves is None else self.curves
        object.__setattr__(self, "curves", tuple(map(_curve, curves)))
        for name in ("mean", "std", "curves"):
            if len(getattr(self, name)) != self.length:
                raise ValueError(
                    f"data.array.{name} has {len(getattr(self, name))} numbers, "
                    f"data.array.length={self.length}: give one for each."
                )
        for name in ("mean", "std"):
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
        if np.isnan(values).all():
            return None
        return torch.from_numpy(self._standardise(values[None])[0])

    def decode_all(self, cells: Sequence[Cell]) -> list[Tensor | None] | None:
        here = [row for row, cell in enumerate(cells) if cell is not None]
        if not here or not all(isinstance(cells[row], np.ndarray) for row in here):
            return None
        values = np.stack([cells[row] for row in here])
        if values.shape[1:] != (self.length,) or np.isinf(values).any():
            return None
        found: list[Tensor | None] = [None] * len(cells)
        tensors = torch.from_numpy(self._standardise(values))
        for row, numbers, tensor in zip(here, values, tensors, strict=True):
            found[row] = None if np.isnan(numbers).all() else tensor
        return found

    def _standardise(self, values: np.ndarray) -> np.ndarray:
        """(n, length, 2) float32 of (n, length) numbers."""
        missing = np.isnan(values)
        with np.errstate(over="ignore"):
            scaled = (values - self.mean) / self.std
        for column, curve in enumerate(self.curves or ()):
            if curve is not None:
                scaled[:, column] = np.interp(values[:, column], *curve)
        scaled = np.where(missing, 0.0, scaled).clip(-_LARGEST, _LARGEST)
        return np.stack([scaled, missing], axis=-1).astype(np.float32)

    @classmethod
    def fit(cls, given: Mapping[str, Any], columns: Sequence[Sequence[Cell]]) -> dict[str, Any]:
        values = _values(columns)
        fitted = [_fit(column[np.isfinite(column)]) for column in values.T]
        found: dict[str, Any] = {"length": values.shape[1]}
        found["mean"], found["std"] = [f[0] for f in fitted], [f[1] for f in fitted]
        found["curves"] = [f[2] for f in fitted]
        if any(given.get(name) is not None for name in ("mean", "std")):
            found["curves"] = None
        return {name: found[name] if given.get(name) is None else given[name] for name in found}


def _fit(values: np.ndarray) -> tuple[float, float, list[list[float]] | None]:
    """Mean, deviation and, where they are not enough, a curve of a column's known numbers."""
    if not len(values):
        return 0.0, 1.0, None
    largest = float(np.abs(values).max())
    scale = largest if largest > 1e100 else 1.0  # squares of larger numbers are not finite
    mean, std = float(np.mean(values / scale)), float(np.std(values / scale))
    # A number that never changes says nothing; dividing by 1 keeps it finite. Rounding leaves its
    # deviation a little above zero.
    if std <= 1e-8 * abs(mean):
        return mean * scale, 1.0, None
    scores = (values / scale - mean) / std
    is_tame = np.abs(scores).max() <= _FAR and abs(np.mean(scores**3)) <= _SKEW
    return mean * scale, std * scale, None if is_tame else _quantiles(values)


def _quantiles(values: np.ndarray) -> list[list[float]]:
    """Values whose normal scores are about as far from one another, and the scores."""
    distinct, counts = np.unique(values, return_counts=True)
    shares = (np.cumsum(counts) - counts / 2) / len(values)  # the middle of those that are equal
    scores = np.array([NormalDist().inv_cdf(share) for share in shares])
    # Denser in the tails than quantiles are: what lies beside an outlier keeps its place.
    wanted = np.linspace(scores[0], scores[-1], _KNOTS)
    places = np.unique([0, *np.searchsorted(scores, wanted).clip(0, len(scores) - 1)])
    return [distinct[places].tolist(), scores[places].tolist()]


def _curve(given: Any) -> Curve | None:
    """A curve as plain data → tuples, checked."""
    if given is None:
        return None
    values, scores = (tuple(map(float, part)) for part in given)
    if len(values) != len(scores) or not values or list(values) != sorted(set(values)):
        raise ValueError(
            f"data.array.curves has {len(values)} values and {len(scores)} scores of a number: "
            "expected as many, the values in rising order."
        )
    return values, scores


def _values(columns: Sequence[Sequence[Cell]]) -> np.ndarray:
    column = columns[0]
    step = -(-len(column) // _SAMPLE)
    rows = [
        np.asarray(column[i], dtype=float)
        for i in range(0, len(column), step)
        if column[i] is not None
    ]
    return np.stack(rows)
