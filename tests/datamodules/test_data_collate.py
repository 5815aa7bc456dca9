"""Collator: padding, masks, presence, and what it refuses."""

import pytest
import torch
from torch.testing import assert_close

from datamodules.collate import Collator, Example, Field

FIELDS = {
    "image": Field((1, 2, 3)),
    "audio": Field((), is_ragged=True),
    "text": Field((), dtype=torch.int64, is_ragged=True),
}


def example(name="a", *, target=0, **inputs):
    return Example(inputs, target, name)


def test_ragged_rows_are_padded_at_the_end_and_masked():
    rows = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0, 5.0])]
    batch = Collator({"audio": FIELDS["audio"]})([example(audio=row) for row in rows])
    assert_close(batch.inputs["audio"], torch.tensor([[1.0, 2.0, 0.0], [3.0, 4.0, 5.0]]))
    assert batch.masks["audio"].tolist() == [[True, True, False], [True, True, True]]


def test_ragged_rows_of_vectors_keep_their_width():
    field = Field((5,), is_ragged=True)
    batch = Collator({"array": field})([example(array=torch.ones(n, 5)) for n in (2, 3)])
    assert batch.inputs["array"].shape == (2, 3, 5)
    assert batch.inputs["array"].sum() == 25


def test_full_rows_need_no_mask():
    batch = Collator(FIELDS)([example(audio=torch.ones(3), text=torch.ones(2).long())] * 2)
    assert "audio" not in batch.masks
    assert "text" not in batch.masks


def test_an_absent_modality_is_zeros_and_not_present():
    batch = Collator(FIELDS)(
        [
            example("a", image=torch.ones(1, 2, 3), audio=torch.ones(5)),
            example("b", image=None, audio=torch.ones(5)),
            example("c", image=torch.ones(1, 2, 3), audio=None),
        ]
    )
    assert batch.present["image"].tolist() == [True, False, True]
    assert batch.present["audio"].tolist() == [True, True, False]
    assert batch.inputs["image"].flatten(1).sum(1).tolist() == [6, 0, 6]
    assert batch.masks["audio"].sum(1).tolist() == [5, 5, 0]
    assert "image" not in batch.masks


def test_a_modality_that_all_lack_is_still_there_with_one_padded_element():
    batch = Collator(FIELDS)([example(image=torch.ones(1, 2, 3))] * 2)
    assert batch.inputs["text"].tolist() == [[0], [0]]
    assert batch.inputs["text"].dtype == torch.int64
    assert batch.masks["text"].tolist() == [[False], [False]]
    assert batch.present["text"].tolist() == [False, False]


def test_padded_lengths_are_rounded_up_but_not_beyond_the_limit():
    field = Field((), is_ragged=True, pad_multiple=4, max_length=11)
    assert [field.padded_length(length) for length in (0, 3, 5, 9, 11)] == [4, 4, 8, 11, 11]
    batch = Collator({"audio": field})([example(audio=torch.ones(5))])
    assert batch.masks["audio"].tolist() == [[True] * 5 + [False] * 3]


def test_targets_and_ids_are_kept_in_order():
    batch = Collator({"audio": FIELDS["audio"]})(
        [example(name, target=t, audio=torch.ones(1)) for name, t in (("p", 5), ("q", 2))]
    )
    assert batch.target.tolist() == [5, 2]
    assert batch.ids == ["p", "q"]


def test_vector_targets_are_stacked():
    batch = Collator({"audio": FIELDS["audio"]})(
        [example(target=torch.tensor([0.0, 1.0, 1.0]), audio=torch.ones(1))] * 2
    )
    assert batch.target.shape == (2, 3)


def test_an_example_with_no_modality_is_named():
    with pytest.raises(ValueError, match="Example row 7 has none of the modalities"):
        Collator(FIELDS)([example("row 7", image=None)])


def test_images_of_two_sizes_are_refused_with_both_names_and_shapes():
    images = [example("p", image=torch.ones(1, 2, 3)), example("q", image=torch.ones(1, 3, 2))]
    with pytest.raises(ValueError, match=r"p and q have image of shapes \(1, 2, 3\) and \(1, 3, 2"):
        Collator(FIELDS)(images)


def test_images_of_a_size_other_than_promised_are_refused():
    with pytest.raises(ValueError, match=r"p has image of shape \(1, 5, 5\).*\(1, 2, 3\)"):
        Collator(FIELDS)([example("p", image=torch.ones(1, 5, 5))])


def test_an_empty_ragged_input_is_refused():
    with pytest.raises(ValueError, match="Example p has audio of shape"):
        Collator(FIELDS)([example("p", audio=torch.ones(0))])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_with_name_and_modality(value):
    good, bad = torch.ones(3), torch.tensor([0.0, value, 0.0])
    with pytest.raises(ValueError, match="Example q has NaN or infinity in its audio"):
        Collator(FIELDS)([example("p", audio=good), example("q", audio=bad)])
