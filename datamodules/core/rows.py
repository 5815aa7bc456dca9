"""A data set as rows, an example each: what every layout of files on a disk comes down to."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from datamodules.core.columns import Column


@dataclass
class Rows:
    """The rows of a data set.

    Args:
        columns: modality → its cells, n each.
        labels: n classes (anything with a name), n lists of labels, or an (n, k) float array of
            values, as `targets` of the data module says.
        ids: n names that lead a reader to the row.
        splits: (n,) "train", "val" or "test"; None = all are train to begin with.
        held_out: splits to make out of train, in this order.
        strata: n values of which a made split takes an equal share each; None = the classes.
        groups: n values; rows that share one are never put into two splits.
        classes: the classes or labels in the order of their indices, or the names of the values;
            None = those of the training split, sorted.
    """

    columns: Mapping[str, Column]
    labels: Sequence[Any] | np.ndarray
    ids: Sequence[str]
    splits: Sequence[str] | np.ndarray | None = None
    held_out: Sequence[str] = ()
    strata: Sequence[Hashable] | None = None
    groups: Sequence[Hashable] | None = None
    classes: Sequence[str] | None = None


class Names(Sequence[str]):
    """Some of many names, made when they are asked for."""

    def __init__(self, names: Sequence[str], indices: np.ndarray) -> None:
        self.names, self.indices = names, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> str:
        return self.names[int(self.indices[index])]


class RowNumbers(Sequence[str]):
    """my.csv:17 and the like, made when they are asked for.

    Args:
        rows: (n,) positions in all files together.
        starts: (files + 1,) position of each file's first row.
        files: their names.
        firsts: number of each file's first row; None = 1, below the header.
    """

    are_unique = True

    def __init__(
        self,
        rows: np.ndarray,
        *,
        starts: np.ndarray,
        files: Sequence[str],
        firsts: Sequence[int] | None = None,
    ) -> None:
        self.rows, self.starts, self.files = rows, starts.tolist(), files
        self.firsts = firsts or [1] * len(files)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> str:
        row = int(self.rows[index])
        file = bisect_right(self.starts, row) - 1
        return f"{self.files[file]}:{row - self.starts[file] + self.firsts[file]}"
