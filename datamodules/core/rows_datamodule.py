"""The base of layouts of files: rows → splits, targets and sources; small sets stay decoded."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.core.bad_examples import BadExamples
from datamodules.core.cached_columns import cache_in_memory, cache_on_disk, decoded_bytes
from datamodules.core.columns import Column, Files
from datamodules.core.data_audit import audit
from datamodules.core.datamodule import MultimodalDataModule
from datamodules.core.dataset import SPLITS, Source
from datamodules.core.labels import encode_labels
from datamodules.core.rows import Names, Rows
from datamodules.core.splitting import assign_splits
from datamodules.readers import READERS, Reader, kind_of


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
        options: dict[str, Any] = {"readers": readers, "bad_examples": self.bad_examples}
        if fits:
            return {n: cache_in_memory(source, **options) for n, source in sources.items()}
        folder = self.cache_dir
        self.notes.append(f"decoded examples are kept in {folder}, {size / 2**30:.2g} GiB")
        return {n: cache_on_disk(source, folder=folder, **options) for n, source in sources.items()}

    def _fit_readers(self, train: Source) -> None:
        """Fills in the options that are open, and notes what the files are like."""
        for name, reader in READERS.items():
            columns = [train.columns[m] for m in self.modalities if kind_of(m) == name]
            if columns and self._open(name):
                self.readers[name] = reader(**reader.fit(self.given.get(name, {}), columns))
                said = (reader.describe(columns), self.readers[name].chosen())
                self.notes += [f"{name:5} {line}" for line in said if line]


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
        sources[split] = Source(
            targets=targets[torch.from_numpy(indices)],
            ids=Names(rows.ids, indices),
            columns={name: column.take(indices) for name, column in rows.columns.items()},
        )
    return sources
