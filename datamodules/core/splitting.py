"""Which examples are held out of training, and which lack which modality, at random."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from datamodules.core.rows import Rows
from datamodules.loading.seeding import generator
from perceiver.types import TargetKind


def assign_splits(
    rows: Rows, *, targets: TargetKind, shares: Mapping[str, float], split_seed: int
) -> np.ndarray:
    """(n,) names of splits: as the rows give them, and `rows.held_out` taken from train.

    Args:
        rows: of a data set.
        targets: what they are; classes are held out in equal shares.
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
        strata = rows.labels if targets == TargetKind.CLASS else np.zeros(len(rows.ids), int)
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


def hold_out(groups: Sequence[object], share: float, *, rng: np.random.Generator) -> np.ndarray:
    """A stratified part of a data set: about `share` of every group, at least one of each.

    A group of a single example stays where it is, so that nothing vanishes from training.

    Args:
        groups: one hashable and orderable value an example (its class, say).
        share: of the examples to hold out, in (0, 1).
        rng: source of randomness.

    Returns:
        (n,) bool, True on the examples held out.
    """
    if not 0 < share < 1:
        raise ValueError(f"The share to hold out must lie inside (0, 1), got {share}.")
    members: dict[object, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    held_out = np.zeros(len(groups), dtype=bool)
    for group in sorted(members):
        indices = members[group]
        count = min(max(1, round(share * len(indices))), len(indices) - 1)
        held_out[rng.permutation(indices)[:count]] = True
    return held_out


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


def draw_missing(
    probabilities: Sequence[float], *, absent: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Which examples lack which modality: at random, but each example keeps at least one.

    Args:
        probabilities: of each modality to be left out.
        absent: (n, modalities) bool, True where the example has none to begin with.
        rng: source of randomness.

    Returns:
        (n, modalities) bool, `absent` included. Rows all absent to begin with stay so.
    """
    chance = np.asarray(probabilities, dtype=float)
    draws = rng.random(absent.shape)
    lacking = absent | (draws < chance)
    # Where everything went, the modality that was nearest to being kept stays.
    margin = np.where(absent, -np.inf, draws - chance)
    emptied = lacking.all(axis=1) & ~absent.all(axis=1)
    lacking[emptied, margin[emptied].argmax(axis=1)] = False
    return lacking
