"""Options of a data set held against what it turns out to have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from datamodules.core.dataset import SPLITS, Source
from datamodules.readers import kind_of


def check_labels(
    names: Sequence[str], sources: Mapping[str, Source], *, num_classes: int | None
) -> None:
    """Labels against the classes found, and those against `num_classes` where it is given.

    Args:
        names: of the classes.
        sources: split → its examples.
        num_classes: that are expected; None = any.

    Raises:
        ValueError: a label lies outside, which the message names, or there are other classes.
    """
    wanted = len(names) if num_classes is None else num_classes
    for source in sources.values():
        if source.targets.ndim != 1:
            continue
        outside = ((source.targets < 0) | (source.targets >= wanted)).nonzero()
        if len(outside):
            index = int(outside[0])
            raise ValueError(
                f"Example {source.ids[index]} has label {int(source.targets[index])}, outside "
                f"[0, {wanted}): data.num_classes={wanted}, the data has {len(names)} classes; "
                "repair the label or set data.num_classes=null."
            )
    if wanted != len(names):
        raise ValueError(
            f"data.num_classes={wanted}, but the data has {len(names)} classes: "
            f"set data.num_classes={len(names)} or null."
        )


def check_missing(
    missing: Mapping[str, Mapping[str, float] | None], available: Sequence[str]
) -> dict[str, dict[str, float]]:
    """`data.missing` as plain data.

    Args:
        missing: split → modality → share of examples to take the modality from.
        available: kinds of modalities that the data set has.

    Raises:
        ValueError: it names no such split or modality, or gives no share.
    """
    checked: dict[str, dict[str, float]] = {}
    for split, chances in missing.items():
        checked[split] = dict(chances or {})
        for modality, chance in checked[split].items():
            known = split in SPLITS and kind_of(modality) in available
            if not known or not 0 <= chance <= 1:
                raise ValueError(
                    f"data.missing.{split}.{modality}={chance}: expected a split of "
                    f"{list(SPLITS)}, a modality of {list(available)} and a share in [0, 1]."
                )
    return checked
