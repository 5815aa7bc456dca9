"""A data set as rows, an example each: what every layout of files on a disk comes down to.

A layout lists its rows and names their columns; this module makes the splits that are not given,
turns labels into targets, and finds files that are not there.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.core.bad_examples import BadExamples
from datamodules.core.columns import Column, Files
from datamodules.core.data_audit import audit
from datamodules.core.datamodule import MultimodalDataModule
from datamodules.core.dataset import SPLITS, Source, hold_out
from datamodules.loading.cache import CachedSource, decoded_bytes
from datamodules.loading.seeding import generator
from datamodules.readers import READERS, Cell, Reader, kind_of


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


class RowsSource(Source):
    """The rows of one split.

    Args:
        columns: modality → its cells.
        targets: see `Source`.
        ids: see `Source`.
    """

    def __init__(
        self, columns: Mapping[str, Column], *, targets: Sequence[int] | Tensor, ids: Sequence[str]
    ) -> None:
        super().__init__(targets=targets, ids=ids)
        self.columns = dict(columns)

    def cells(self, indices: Sequence[int]) -> dict[str, list[Cell]]:
        return {name: column.cells(indices) for name, column in self.columns.items()}

    def absent(self, modality: str) -> np.ndarray:
        return self.columns[modality].absent()

    def lengths(self, modality: str, reader: Reader | None) -> np.ndarray | None:
        return self.columns[modality].lengths(reader)

    def blocks(self) -> np.ndarray | None:
        return next(iter(self.columns.values())).blocks()


class RowsDataModule(MultimodalDataModule):
    """Base of layouts of files: a subclass says which modalities it has, and its `rows`.

    Args:
        cache_gib: keep pictures and sound decoded in memory, from when they are first read, if they
            take less than this, in GiB, and training does not take other parts of them every time.
        cache_dir: folder to keep them in where they take more; this and later runs then decode
            nothing. None = decode them every time.
        **common: options of `MultimodalDataModule`, which refuses unknown ones.
    """

    val_share = 0.1  # of train, or of all where test is held out as well; options of most layouts
    test_share = 0.2

    def __init__(
        self, *, cache_gib: float = 1.0, cache_dir: str | None = None, **common: Any
    ) -> None:
        super().__init__(**common)
        if cache_gib < 0:
            raise ValueError(f"data.cache_gib={cache_gib}, expected at least 0.")
        self.cache_gib = cache_gib
        self.cache_dir = Path(cache_dir) if cache_dir else None

    @abstractmethod
    def rows(self) -> Rows:
        """The rows of all splits.

        Raises:
            FileNotFoundError: what the layout needs is not there; the message says what and where.
            ValueError: a row makes no sense; the message names it.
        """

    def build(self) -> tuple[list[str], dict[str, Source]]:
        rows = self.rows()
        columns = {name: rows.columns[name] for name in self.modalities}
        rows.columns = without_lost_files(columns, rows.ids, self.bad_examples)
        shares = {"test": self.test_share, "val": self.val_share}
        splits = assign_splits(
            rows, targets=self.targets, shares=shares, split_seed=self.split_seed
        )
        classes, targets = encode_labels(rows, splits, self.targets)
        self.notes += audit(
            columns=rows.columns,
            ids=rows.ids,
            splits=splits,
            groups=rows.groups,
            targets=targets,
            classes=classes,
        )
        sources = make_sources(rows, splits, targets)
        self._fit_readers(sources["train"])
        return classes, sources

    def prepare(
        self, sources: dict[str, Source], readers: Mapping[str, Reader]
    ) -> dict[str, Source]:
        size = decoded_bytes(list(sources.values()), readers)
        drawn = any(reader.draws and reader.is_costly for reader in readers.values())
        fits = size < self.cache_gib * 2**30
        if drawn or not size or not (fits or self.cache_dir):
            return sources
        folder = None if fits else self.cache_dir
        if folder:
            self.notes.append(f"decoded examples are kept in {folder}, {size / 2**30:.2g} GiB")
        return {
            split: CachedSource(
                source, readers=readers, bad_examples=self.bad_examples, folder=folder
            )
            for split, source in sources.items()
        }

    def _fit_readers(self, train: RowsSource) -> None:
        """Fills in the options that are open, and notes what the files are like."""
        for name, reader in READERS.items():
            columns = [train.columns[m] for m in self.modalities if kind_of(m) == name]
            if columns and self._open(name):
                self.readers[name] = reader(**reader.fit(self.given.get(name, {}), columns))
                said = reader.describe(columns)
                self.notes += [f"{name:5} {said}"] if said else []


def without_lost_files(
    columns: Mapping[str, Column], ids: Sequence[str], bad_examples: BadExamples | None
) -> dict[str, Column]:
    """The columns with cells emptied whose file does not exist or must not be read.

    Args:
        columns: modality → its cells.
        ids: of the rows.
        bad_examples: where to report them; None = raise.

    Raises:
        ValueError: there is such a file, or there are too many.
    """
    found = dict(columns)
    for name, column in columns.items():
        problems = column.problems() if isinstance(column, Files) else {}
        if not problems:
            continue
        if bad_examples is None:
            index, reason = next(iter(problems.items()))
            others = f" ({len(problems) - 1:,} more rows like it)" if len(problems) > 1 else ""
            if len(problems) == np.count_nonzero(~column.absent()):
                raise ValueError(
                    f"{ids[index]}: {reason}{others} None of the files can be read: point "
                    "data.root at the folder that their paths are relative to."
                )
            raise ValueError(
                f"{ids[index]}: {reason}{others} data.on_error=skip goes on without them."
            )
        bad_examples.total = len(ids)
        for index, reason in problems.items():
            bad_examples.report(ids[index], name, file=column.name(index), reason=reason)
        found[name] = column.without(np.array(list(problems)))
    return found


def assign_splits(
    rows: Rows, *, targets: str, shares: Mapping[str, float], split_seed: int
) -> np.ndarray:
    """(n,) names of splits: as the rows give them, and `rows.held_out` taken from train.

    Args:
        rows: of a data set.
        targets: classes ("a class") are held out in equal shares.
        shares: split → part of train to hold out; where both are, each is a part of the whole.
        split_seed: of the choice.

    Raises:
        ValueError: there are too few examples for a split that is to be made.
    """
    splits = np.full(len(rows.ids), "train", dtype="<U5")
    if rows.splits is not None:
        splits[:] = rows.splits
    strata = rows.strata
    if strata is None:
        strata = rows.labels if targets == "a class" else np.zeros(len(rows.ids), int)
    left = 1.0  # of train
    for number, name in enumerate(rows.held_out):
        train = np.flatnonzero(splits == "train")
        share, left = shares[name] / left, left - shares[name]
        rng = generator(split_seed, *([number] if number else []))
        chosen = [strata[index] for index in train]
        if rows.groups is None:
            held_out = hold_out(chosen, share, rng=rng)
        else:
            groups = [rows.groups[index] for index in train]
            held_out = hold_out_groups(groups, chosen, share, rng=rng)
        if not held_out.any():
            raise ValueError(
                f"{len(splits):,} examples are too few to make a {name} split of: with three of a "
                "class, train, val and test have one each; add examples, or give the splits."
            )
        splits[train[held_out]] = name
    return splits


def make_sources(rows: Rows, splits: np.ndarray, targets: Tensor) -> dict[str, Source]:
    """The source of each split.

    Args:
        rows: of all splits.
        splits: (n,) the split of each.
        targets: as `encode_labels` makes them of all rows.
    """
    sources: dict[str, Source] = {}
    for split in SPLITS:
        indices = np.flatnonzero(splits == split)
        sources[split] = RowsSource(
            {name: column.take(indices) for name, column in rows.columns.items()},
            targets=targets[torch.from_numpy(indices)],
            ids=Names(rows.ids, indices),
        )
    return sources


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


def encode_labels(rows: Rows, splits: np.ndarray, targets: str) -> tuple[list[str], Tensor]:
    """The names of classes, labels or values, and the targets of all rows.

    Raises:
        ValueError: an example has a label that is none of the classes; the message names it.
    """
    labels = rows.labels
    if targets == "values":
        values = torch.as_tensor(np.asarray(labels, dtype=np.float32))
        return list(rows.classes or [f"value {n}" for n in range(values.shape[1])]), values
    several = targets == "labels"
    if rows.classes is not None:
        classes = [str(name) for name in rows.classes]
    else:
        train = compress(labels, (splits == "train").tolist())
        classes = sorted_labels(set().union(*train) if several else set(train))
    indices = {name: index for index, name in enumerate(classes)}
    distinct = set().union(*labels) if several else set(labels)
    known = {name: indices.get(str(name)) for name in distinct}  # one string a class, not one a row
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


def hold_out_groups(
    groups: Sequence[Hashable],
    strata: Sequence[Hashable],
    share: float,
    *,
    rng: np.random.Generator,
) -> np.ndarray:
    """Whole groups, together about `share` of the examples and of each stratum.

    Returns:
        (n,) bool, True on the examples held out.

    Raises:
        ValueError: there are too few groups to hold any out.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if not 0 < share < 1:
        raise ValueError(f"The share to hold out must lie inside (0, 1), got {share}.")
    group_names, group = np.unique(np.asarray([str(g) for g in groups]), return_inverse=True)
    stratum = np.unique(np.asarray([str(s) for s in strata]), return_inverse=True)[1]
    if len(group_names) < 2:
        raise ValueError(
            f"data.group has {len(group_names)} value in the training rows, a split needs at "
            "least 2: name another column, or give the splits."
        )
    folds = min(max(2, round(1 / share)), len(group_names))
    if np.bincount(stratum).max() < folds:  # the splitter wants a stratum that fills every fold
        stratum = np.zeros(len(group), dtype=int)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=int(rng.integers(2**31)))
    held_out = np.zeros(len(group), dtype=bool)
    held_out[next(splitter.split(group, stratum, group))[1]] = True
    return held_out
