"""Which subsets of the modalities a model is evaluated with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import torch

from perceiver.types import Batch

CHOICES = ("all", "single", "none")


def modality_subsets(modalities: Sequence[str], which: str) -> list[tuple[str, ...]]:
    """The proper subsets to report besides the whole, small ones first.

    Args:
        modalities: in the order in which a subset's name lists them.
        which: "all" proper subsets, "single" modalities, or "none".

    Raises:
        ValueError: for another word, or for all subsets of more than six modalities.
    """
    if which not in CHOICES:
        raise ValueError(f"subsets={which!r} must be one of {', '.join(CHOICES)}")
    if which == "all" and len(modalities) > 6:
        raise ValueError(
            f"{len(modalities)} modalities have {2 ** len(modalities) - 1} subsets: "
            "choose subsets=single"
        )
    largest = {"all": len(modalities) - 1, "single": min(1, len(modalities) - 1), "none": 0}[which]
    return [subset for size in range(1, largest + 1) for subset in combinations(modalities, size)]


def restrict(batch: Batch, subset: Sequence[str], asked: Sequence[str] = ()) -> Batch:
    """The batch as if it had the modalities of `subset` alone.

    Args:
        batch: whose examples may have others.
        subset: modalities that are kept.
        asked: modalities whose elements the model answers for one by one; where they are not in
            the subset they stay as zeros that no example has, which tell how many there are.
    """
    inputs = {name: batch.inputs[name] for name in subset}
    present = {name: here for name, here in batch.present.items() if name in subset}
    for name in set(asked) & set(batch.inputs) - set(subset):
        inputs[name] = torch.zeros_like(batch.inputs[name])
        present[name] = inputs[name].new_zeros(len(batch), dtype=torch.bool)
    masks = {name: mask for name, mask in batch.masks.items() if name in inputs}
    return replace(batch, inputs=inputs, masks=masks, present=present)
