"""Dates of a row → their time, standardised, and its place in the year, the week and the day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from datamodules.readers.array import ArrayReader
from datamodules.readers.field import Field
from datamodules.readers.reader import Cell, Reader

_DAY = 86_400.0  # seconds
_YEAR = 365.2425 * _DAY
_THURSDAY = 3  # 1970 began on one; weeks begin on Mondays
CHANNELS = 13


@dataclass(frozen=True)
class DateReader(Reader):
    """What the dates of a row are to the model (`data.date` in the config).

    Each date is an element of `CHANNELS` channels: its time, standardised; sine and cosine of the
    part of the year and of the day that has passed; which of seven weekdays it is, from Monday; 1
    where it is missing, and all else is 0. A row without any date lacks the modality.

    Args:
        length: dates in a row.
        mean: of each over the training split, in seconds since the beginning of 1970.
        std: standard deviation of each over the training split, in seconds.
    """

    takes_columns: ClassVar[bool] = True
    is_costly: ClassVar[bool] = False
    fitted: ClassVar[tuple[str, ...]] = ("length", "mean", "std")

    length: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
            if len(getattr(self, name)) != self.length:
                raise ValueError(
                    f"data.date.{name} has {len(getattr(self, name))} numbers, "
                    f"data.date.length={self.length}: give one for each."
                )
        if min(self.std, default=1.0) <= 0:
            raise ValueError(f"data.date.std={list(self.std)}, expected numbers above 0.")

    def field(self) -> Field:
        return Field((self.length, CHANNELS))

    def decode(self, cell: Cell, *, where: str) -> Tensor | None:
        """(length, 13) float32 of seconds since 1970, NaN if missing, or of ISO dates."""
        given = list(cell) if isinstance(cell, list | np.ndarray) else [cell]
        if len(given) != self.length:
            raise ValueError(
                f"{where} has {len(given)} dates, the model reads {self.length} (data.date.length)."
            )
        seconds = np.array([_seconds(value, where) for value in given])
        missing = ~np.isfinite(seconds)
        if missing.all():
            return None
        known = np.where(missing, self.mean, seconds)
        weekday = np.floor(known / _DAY).astype(int) + _THURSDAY
        channels = [(known - self.mean) / self.std]
        for period in (_YEAR, _DAY):
            angle = 2 * np.pi * (known / period % 1)
            channels += [np.sin(angle), np.cos(angle)]
        channels += [weekday % 7 == day for day in range(7)]
        found = np.where(missing, 0.0, np.stack(channels))
        return torch.from_numpy(np.stack([*found, missing], axis=1).astype(np.float32))

    @classmethod
    def fit(cls, given: Mapping[str, Any], columns: Sequence[Sequence[Cell]]) -> dict[str, Any]:
        found = ArrayReader.fit(given, columns)
        return {name: found[name] for name in cls.fitted}


def _seconds(value: Any, where: str) -> float:
    """Seconds since 1970 of a number of them, or of an ISO date; NaN of None."""
    if value is None:
        return float("nan")
    if isinstance(value, float | np.floating):
        return float(value)
    try:
        # What has no zone is read as it stands.
        moment = np.datetime64(str(value).strip().removesuffix("Z").replace(" ", "T"), "ms")
    except ValueError as error:
        raise ValueError(
            f"{where} holds {value!r:.100}, which is no date: write 2024-02-29 or 2024-02-29T13:05."
        ) from error
    return float(moment.astype("int64")) / 1000
