"""What every kind of modality shares: a cell as it lies on the disk → a tensor for the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from datamodules.readers.field import Field

# What a row holds of a modality: a file, a file's content, a text, numbers, names, or nothing.
Cell = Path | bytes | str | np.ndarray | Tensor | None


class Reader(ABC):
    """Base of the kinds of modalities; an instance is what one kind is to the model.

    A subclass is a frozen dataclass of options (`data.image` in the config) in plain data, so that
    a checkpoint holds all that prediction needs. An option that a file layout may leave open is
    filled in by `fit`.

    A modality has a name and a kind: `image`, or `image_left` and `image_right` for two cameras;
    its name begins with the kind (`kind_of`).
    """

    suffixes: ClassVar[frozenset[str]] = frozenset()  # of its files, lower case, with the dot
    fitted: ClassVar[tuple[str, ...]] = ()  # options that `fit` fills in where they are None
    takes_columns: ClassVar[bool] = False  # whether a cell is of several columns of a table
    is_costly: ClassVar[bool] = True  # to decode: kept decoded in memory where it fits

    @property
    def draws(self) -> bool:
        """Whether training takes another part of a cell every time: `decode` then takes `rng=`."""
        return False

    @abstractmethod
    def field(self) -> Field:
        """What its tensors look like, for the collator."""

    @abstractmethod
    def decode(self, cell: Cell, *, where: str) -> Tensor | None:
        """The tensor of a cell; None where the cell turns out to hold nothing.

        Args:
            cell: anything but None.
            where: the example, to name it where the cell is no file.

        Raises:
            ValueError: the cell cannot be decoded; the message names the file or the example.
        """

    def decode_all(self, cells: Sequence[Cell]) -> list[Tensor | None] | None:
        """The tensors of cells, any of them None, where that is faster all at once; or None.

        Raises:
            ValueError: a cell cannot be decoded; `decode` says which, and why.
        """
        return None

    @cached_property
    def longest(self) -> int | None:
        """The length that its tensors are cut to; None = they have one size, or any length."""
        field = self.field()
        return field.max_length if field.is_ragged else None

    def length_of(self, cell: Cell) -> int | None:
        """About how long the cell's tensor is, from its header; None = as long as any other.

        0 where it is nothing or broken: reading reports it.
        """
        return None

    def decoded_bytes(self) -> int:
        """What a decoded cell takes in memory, at most."""
        field = self.field()
        length = (field.max_length or 0) if field.is_ragged else 1
        width = 1 if len(field.shape) == 3 else field.dtype.itemsize  # pictures are kept as bytes
        return width * length * prod(field.shape)

    @classmethod
    @abstractmethod
    def fit(cls, given: Mapping[str, Any], columns: Sequence[Sequence[Cell]]) -> dict[str, Any]:
        """Options with those that are None filled in from the training examples.

        Looks at a bounded sample, at the headers of files where they tell enough. Broken files are
        passed over: reading reports them.

        Args:
            given: the options as configured.
            columns: the cells of each modality of this kind.
        """

    @classmethod
    def open_options(cls, given: Mapping[str, Any]) -> list[str]:
        """The options that `fit` is to fill in, of those as configured."""
        return [name for name in cls.fitted if given.get(name) is None]

    def chosen(self) -> str:
        """What `fit` decided, in a few words for people; "" = nothing to say."""
        return ""

    @classmethod
    def describe(cls, columns: Sequence[Sequence[Cell]]) -> str:
        """What the cells are like, in a few words for people; "" = nothing to say."""
        return ""


def sample(columns: Sequence[Sequence[Cell]], count: int) -> list[Cell]:
    """Up to `count` cells that are not None, spread evenly over each column."""
    found: list[Cell] = []
    for column in columns:
        share = max(1, count // len(columns))
        # Twice as many places as are wanted: some cells may be empty.
        places = np.unique(np.linspace(0, len(column) - 1, 2 * share).astype(int)) if column else ()
        cells = (column[int(place)] for place in places)
        found += [cell for cell in cells if cell is not None][:share]
    return found


def span(values: Iterable[float], unit: str = "") -> str:
    """ "3 to 7 s", or "3 s" where all are the same."""
    low, high = min(values), max(values)
    text = f"{low:,.4g}" if low == high else f"{low:,.4g} to {high:,.4g}"
    return f"{text} {unit}".rstrip()
