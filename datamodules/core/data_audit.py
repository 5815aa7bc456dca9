"""What is odd about a data set: repeated names, leaks between splits, unseen classes."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from datamodules.core.columns import Column, Files, Values
from datamodules.core.dataset import SPLITS

_SHORT = 16  # bytes; shorter texts may well come twice
_LARGE = 2**30  # bytes; more are not compared: they may not fit into memory
_FEW = 20  # examples; fewer measure nothing


def audit(
    *,
    columns: Mapping[str, Column],
    ids: Sequence[str],
    splits: np.ndarray,
    groups: Sequence[Hashable] | None,
    targets: Tensor,
    classes: Sequence[str],
) -> list[str]:
    """Warnings for people, a line each.

    Args:
        columns: modality → cells.
        ids: names of the rows.
        splits: (n,) names of splits.
        groups: n values that should not be in two splits; None = there are none.
        targets: (n,) class indices, or (n, k) labels or values.
        classes: their names.

    Raises:
        ValueError: there is one class alone, so that nothing can be learned.
    """
    if targets.ndim == 1 and len(classes) < 2:
        raise ValueError(
            f"all examples are of the class {', '.join(classes)}: nothing can be learned from one "
            "class, add examples of another or choose another target"
        )
    lines = _repeated_names(ids)
    for name, column in columns.items():
        lines += _leaks(name, column, splits, ids)
    lines += _straddlers(groups, splits)
    if (splits == "train").any() and (targets.ndim == 1 or not targets.is_floating_point()):
        lines += _absent_classes(targets, classes, splits) + _alike(classes)
    for split in SPLITS:
        count = int((splits == split).sum())
        if 0 < count < _FEW:
            lines.append(f"warning: {split} has {count} examples, too few to measure anything")
    return lines


def _repeated_names(ids: Sequence[str]) -> list[str]:
    if getattr(ids, "are_unique", False):
        return []
    counts = pc.value_counts(getattr(ids, "names", None) or pa.array(ids))
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if not len(repeated):
        return []
    example = repeated[0].as_py()
    return [
        f"warning: {len(repeated):,} ids name several rows, {example['values']} names "
        f"{example['counts']}"
    ]


def _leaks(name: str, column: Column, splits: np.ndarray, ids: Sequence[str]) -> list[str]:
    """Files and texts that training and another split share."""
    cells = column.paths if isinstance(column, Files) else column
    if not isinstance(cells, Values):
        return []
    sizes = cells.num_bytes()
    if sizes.sum() > _LARGE:
        return [f"hint: {name} is too much to be searched for what splits share"]
    values = cells.array()
    coded = values.combine_chunks().dictionary_encode()
    codes = coded.indices.fill_null(0).to_numpy()
    if isinstance(column, Files):
        codes = _same_files(coded.dictionary, column.root)[codes]
    is_text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    what = "a text" if cells is column and is_text else "a file"
    told = sizes >= (_SHORT if cells is column else 1)
    known = np.zeros(len(coded.dictionary) + 1, dtype=bool)
    known[codes[told & (splits == "train")]] = True
    lines = []
    for split in SPLITS[1:]:
        rows = np.flatnonzero(told & (splits == split) & known[codes])
        if len(rows):
            first = values[int(rows[0])].as_py()
            shown = repr(first[:60]) if isinstance(first, str) else ids[int(rows[0])]
            lines.append(
                f"warning: {len(rows):,} examples of {split} have {what} as {name} that train has "
                f"too ({shown}): what is measured on them is memory"
            )
    return lines


def _same_files(names: pa.Array, root: Path) -> np.ndarray:
    """(n + 1,) numbers of n paths, equal where they name one file: a.jpg, ./a.jpg, /root/a.jpg."""
    odd = pc.match_substring_regex(names, r"^/|(^|/)\.\.?/|//").to_numpy(zero_copy_only=False)
    numbers = np.arange(len(names) + 1)
    if odd.any():
        plain, above = names.to_pylist(), os.path.join(os.path.abspath(root), "")
        for index in np.flatnonzero(odd):
            path = os.path.normpath(os.path.join(above, plain[index]))
            plain[index] = path.removeprefix(above)
        numbers[:-1] = pa.array(plain).dictionary_encode().indices.to_numpy()
    return numbers


def _straddlers(groups: Sequence[Hashable] | None, splits: np.ndarray) -> list[str]:
    """Groups that splits which were given tear apart."""
    homes: dict[Hashable, str] = {}
    torn = {
        group
        for group, split in zip(groups or (), splits if groups else (), strict=True)
        if homes.setdefault(group, split) != split
    }
    if not torn:
        return []
    return [f"warning: {len(torn):,} groups are in several splits, {min(map(str, torn))} for one"]


def _absent_classes(targets: Tensor, classes: Sequence[str], splits: np.ndarray) -> list[str]:
    train = targets[splits == "train"]
    counts = train.bincount(minlength=len(classes)) if train.ndim == 1 else train.sum(0)
    absent = [name for name, count in zip(classes, counts.tolist(), strict=True) if not count]
    if not absent:
        return []
    shown = ", ".join(absent[:5]) + (" …" if len(absent) > 5 else "")
    return [f"warning: no example of train is of {shown}, which cannot be learned"]


def _alike(classes: Sequence[str]) -> list[str]:
    """Classes that a slip of the pen may have made two."""
    seen: dict[str, str] = {}
    lines = []
    for name in classes:
        plain = " ".join(name.split()).casefold()
        if plain in seen:
            lines.append(
                f"warning: the classes {seen[plain]!r} and {name!r} differ in case or spaces alone"
            )
        seen.setdefault(plain, name)
    return lines
