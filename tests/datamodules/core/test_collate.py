"""Collator: padding, masks, presence, and what it refuses."""

import pytest
import torch
from torch.testing import assert_close

from datamodules.core.collate import Collator, Example
from datamodules.readers import Field

FIELDS = {
    "image": Field((1, 2, 3)),
    "audio": Field((), is_ragged=True),
    "text": Field((), dtype=torch.int64, is_ragged=True),
}


def example(name="a", *, target=0, **inputs):
    return Example(inputs, {"target": target}, name)


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
    assert not batch.masks, "what is there is full"


def test_a_modality_that_all_lack_is_still_there_with_one_padded_element():
    batch = Collator(FIELDS)([example(image=torch.ones(1, 2, 3))] * 2)
    assert batch.inputs["text"].tolist() == [[0], [0]]
    assert batch.inputs["text"].dtype == torch.int64
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
    assert batch.targets["target"].tolist() == [5, 2]
    assert batch.ids == ["p", "q"]


def test_vector_targets_are_stacked():
    batch = Collator({"audio": FIELDS["audio"]})(
        [example(target=torch.tensor([0.0, 1.0, 1.0]), audio=torch.ones(1))] * 2
    )
    assert batch.targets["target"].shape == (2, 3)


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


def test_what_all_examples_have_is_not_in_present():
    assert not Collator(FIELDS)(
        [example(image=torch.ones(1, 2, 3), audio=torch.ones(2), text=torch.ones(2).long())] * 2
    ).present


def test_padded_and_absent_rows_in_one_batch():
    rows = {"a": torch.ones(2), "b": None, "c": torch.ones(5)}
    batch = Collator(FIELDS)(
        [example(n, audio=row, text=torch.ones(1).long()) for n, row in rows.items()]
    )
    assert batch.masks["audio"].sum(1).tolist() == [2, 0, 5]
    assert batch.present["audio"].tolist() == [True, False, True]


PIXELS = Field((2, 5, 7), has_own_size=True)


def test_images_of_several_sizes_are_padded_below_and_right_and_masked():
    images = [torch.rand(2, 3, 4), torch.rand(2, 5, 1)]
    batch = Collator({"image": PIXELS})([example(image=image) for image in images])
    assert batch.inputs["image"].shape == (2, 2, 5, 4)
    for image, padded, mask in zip(
        images, batch.inputs["image"], batch.masks["image"], strict=True
    ):
        _, height, width = image.shape
        assert_close(padded[:, :height, :width], image, rtol=0, atol=0)
        assert padded.sum() == pytest.approx(float(image.sum()), rel=1e-6)
        assert mask[:height, :width].all()
        assert mask.sum() == height * width


def test_images_of_one_size_smaller_than_the_largest_need_no_mask():
    batch = Collator({"image": PIXELS})([example(image=torch.ones(2, 3, 4))] * 2)
    assert batch.inputs["image"].shape == (2, 2, 3, 4)
    assert not batch.masks


@pytest.mark.parametrize("size", [(2, 6, 7), (2, 5, 8), (1, 5, 7), (2, 0, 3), (5, 7)])
def test_an_image_that_does_not_fit_is_refused_naming_it(size):
    with pytest.raises(ValueError, match=r"Example a has image of shape .* at most \(2, 5, 7\)"):
        Collator({"image": PIXELS})([example(image=torch.ones(size))])


@pytest.mark.parametrize("field", [Field((1, 1, 2)), Field((1, 1, 2), has_own_size=True)])
def test_bytes_are_scaled_to_one_and_minus_one_and_what_is_not_there_is_zero(field):
    pixels = torch.tensor([[[0, 255]]], dtype=torch.uint8)
    other = FIELDS["audio"]
    batch = Collator({"image": field, "audio": other})(
        [example(image=pixels, audio=torch.ones(1)), example(image=None, audio=torch.ones(1))]
    )
    assert batch.inputs["image"].dtype == torch.float32
    assert batch.inputs["image"].flatten(1).tolist() == [[-1, 1], [0, 0]]


def test_padding_of_bytes_is_zero_after_scaling():
    rows = [torch.zeros(1, 1, 1, dtype=torch.uint8), torch.full((1, 1, 2), 255, dtype=torch.uint8)]
    batch = Collator({"image": Field((1, 1, 2), has_own_size=True)})(
        [example(image=row) for row in rows]
    )
    assert batch.inputs["image"].flatten(1).tolist() == [[-1, 0], [1, 1]]


def test_bytes_and_numbers_in_one_batch_mean_the_same():
    rows = [torch.tensor([[[0, 255]]], dtype=torch.uint8), torch.tensor([[[-1.0, 0.5]]])]
    batch = Collator({"image": Field((1, 1, 2))})([example(image=row) for row in rows])
    assert batch.inputs["image"].flatten(1).tolist() == [[-1, 1], [-1, 0.5]]


def test_a_sum_that_overflows_is_no_infinity():
    large = torch.full((3,), 3e38)
    batch = Collator({"audio": FIELDS["audio"]})([example(audio=large)])
    assert batch.inputs["audio"].isfinite().all()


@pytest.mark.parametrize("longest", [5, 2003])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rows_of_any_length_and_type_are_padded_alike(longest, dtype):
    rows = [torch.ones(n, 3, dtype=dtype) for n in (2, longest)]
    field = Field((3,), is_ragged=True, pad_multiple=7)
    batch = Collator({"array": field})([example(array=row) for row in [*rows, rows[0]]])
    padded = field.padded_length(longest)
    assert batch.inputs["array"].dtype == torch.float32
    for values, mask, length in zip(
        batch.inputs["array"], batch.masks["array"], (2, longest, 2), strict=True
    ):
        expected = torch.arange(padded) < length
        assert torch.equal(mask, expected)
        assert torch.equal(values, expected[:, None].expand(-1, 3).float())
