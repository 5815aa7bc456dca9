"""Which subsets are reported, and batches restricted to them."""

import pytest
import torch

from perceiver.tasks.subsets import modality_subsets, restrict
from perceiver.types import Batch

ORDER = ["image", "audio", "text"]


def test_all_subsets_are_the_proper_ones_small_ones_first_in_the_given_order():
    assert modality_subsets(ORDER, "all") == [
        ("image",),
        ("audio",),
        ("text",),
        ("image", "audio"),
        ("image", "text"),
        ("audio", "text"),
    ]


def test_single_modalities_or_none():
    assert modality_subsets(ORDER, "single") == [("image",), ("audio",), ("text",)]
    assert modality_subsets(ORDER, "none") == []


@pytest.mark.parametrize("which", ["all", "single", "none"])
def test_one_modality_has_no_proper_subset(which):
    assert modality_subsets(["image"], which) == []


def test_impossible_choices_are_refused():
    with pytest.raises(ValueError, match="subsets='pairs' must be one of all, single, none"):
        modality_subsets(ORDER, "pairs")
    with pytest.raises(ValueError, match="7 modalities have 127 subsets: choose subsets=single"):
        modality_subsets(list("abcdefg"), "all")
    assert len(modality_subsets(list("abcdef"), "all")) == 2**6 - 2


def test_a_restricted_batch_holds_the_subset_and_all_targets():
    batch = Batch(
        inputs={name: torch.randn(3, 5) for name in ORDER},
        masks={"text": torch.ones(3, 5).bool(), "audio": torch.ones(3, 5).bool()},
        present={name: torch.ones(3).bool() for name in ORDER},
        targets={"target": torch.arange(3)},
        ids=["x", "y", "z"],
    )
    part = restrict(batch, ("image", "text"))
    assert set(part.inputs) == set(part.present) == {"image", "text"}
    assert set(part.masks) == {"text"}
    assert part.inputs["text"] is batch.inputs["text"]
    assert part.masks["text"] is batch.masks["text"]
    assert part.targets["target"] is batch.targets["target"]
    assert part.ids == batch.ids
    assert set(batch.inputs) == set(ORDER)


def test_what_is_asked_about_stays_as_zeros_that_nobody_has():
    batch = Batch(
        inputs={name: torch.randn(3, 5) for name in ORDER},
        masks={"text": torch.rand(3, 5) < 0.5},
    )
    part = restrict(batch, ("image",), asked=("text",))
    assert set(part.inputs) == {"image", "text"}
    assert part.inputs["text"].tolist() == [[0.0] * 5] * 3
    assert part.present["text"].tolist() == [False] * 3
    assert part.masks["text"] is batch.masks["text"]
    assert restrict(batch, ("image", "text"), asked=("text",)).present == {}
