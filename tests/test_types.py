"""Segments mean what `dense` spells out; batches move and count as one."""

import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from pytorch_lightning.plugins.precision import HalfPrecision
from torch.testing import assert_close

from perceiver import tasks
from perceiver.types import Batch, ByteArray, Segment, TargetKind


def joined_by_loops(segment: Segment, lengths: tuple[int, ...]) -> torch.Tensor:
    """Token by token: content, the code of each index, the constant."""
    examples = []
    for content in segment.content:
        tokens = []
        for token, indices in enumerate(product(*(range(length) for length in lengths))):
            codes = [code[i] for code, i in zip(segment.axes, indices, strict=True)]
            constant = [] if segment.constant is None else [segment.constant]
            tokens.append(torch.cat([content[token], *codes, *constant]))
        examples.append(torch.stack(tokens))
    return torch.stack(examples)


@pytest.mark.parametrize("constant", [None, 2])
@pytest.mark.parametrize("lengths", [(5,), (3, 5), (5, 2, 3)])
def test_dense_joins_content_the_codes_of_each_index_and_the_constant(lengths, constant):
    m = torch.Size(lengths).numel()
    segment = Segment(
        content=torch.randn(2, m, 3),
        axes=tuple(torch.randn(length, 4 + axis) for axis, length in enumerate(lengths)),
        constant=None if constant is None else torch.randn(constant),
    )
    expected = joined_by_loops(segment, lengths)
    assert_close(segment.dense(), expected, rtol=0, atol=0)
    assert segment.channels == expected.shape[-1]


def test_one_code_for_every_place_of_a_grid_is_an_axis_of_all_places():
    content, codes = torch.randn(2, 15, 3), torch.randn(15, 7)
    dense = Segment(content, axes=(codes,), shape=(3, 5)).dense()
    assert_close(dense, torch.cat([content, codes.expand(2, -1, -1)], -1), rtol=0, atol=0)


def test_a_segment_without_positions_is_its_content():
    content = torch.randn(2, 5, 3)
    assert Segment(content).dense() is content


def test_codes_and_constants_take_the_type_of_the_content():
    content = torch.randn(2, 5, 3).bfloat16()
    assert Segment(content, axes=(torch.randn(5, 2),)).dense().dtype is torch.bfloat16
    assert Segment(content, constant=torch.ones(1)).dense().dtype is torch.bfloat16


@pytest.mark.parametrize("lengths", [(7,), (2, 3)])
def test_codes_of_another_grid_are_refused(lengths):
    axes = tuple(torch.randn(length, 2) for length in lengths)
    with pytest.raises(ValueError, match="do not fit 5 tokens"):
        Segment(torch.randn(2, 5, 3), axes=axes).dense()


def test_keep_masks_the_tokens_of_absent_examples_and_nothing_else():
    mask = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
    present = torch.tensor([True, False, True])
    padded = Segment(torch.randn(3, 3, 2), mask=mask).keep(present)
    full = Segment(torch.randn(3, 3, 2)).keep(present)
    assert padded.mask.tolist() == [[True, True, False], [False] * 3, [True] * 3]
    assert full.mask.tolist() == [[True] * 3, [False] * 3, [True] * 3]


def test_a_byte_array_lays_its_segments_end_to_end():
    first, second = torch.randn(2, 3, 5), torch.randn(2, 7, 5)
    array = ByteArray({"audio": Segment(first), "text": Segment(second)})
    assert_close(array.tokens, torch.cat([first, second], 1), rtol=0, atol=0)
    assert array.spans == {"audio": slice(0, 3), "text": slice(3, 10)}
    for name, tokens in (("audio", first), ("text", second)):
        assert_close(array.tokens[:, array.spans[name]], tokens, rtol=0, atol=0)


def test_a_byte_array_has_a_mask_only_where_a_segment_has_one():
    full, mask = Segment(torch.randn(2, 3, 5)), torch.tensor([[True, False], [False, True]])
    padded = Segment(torch.randn(2, 2, 5), mask=mask)
    assert ByteArray({"a": full, "b": full}).mask is None
    joined = ByteArray({"a": full, "b": padded}).mask
    assert joined.tolist() == [[True] * 3 + [True, False], [True] * 3 + [False, True]]


@pytest.fixture
def batch() -> Batch:
    return Batch(
        inputs={"image": torch.randn(3, 1, 2, 2), "text": torch.randint(0, 9, (3, 5))},
        masks={"text": torch.ones(3, 5, dtype=torch.bool)},
        present={"text": torch.tensor([True, False, False])},
        known={"target": torch.tensor([True, False, True])},
        part="length_7",
        targets={"target": torch.tensor([0, 1, 2])},
        ids=["x", "y", "z"],
    )


def test_a_batch_is_as_long_as_its_examples(batch):
    assert len(batch) == 3
    assert len(Batch({})) == 0


def test_all_tensors_of_a_batch_move_to_a_device_with_their_types(batch):
    moved = batch.to("meta")
    parts = ("inputs", "masks", "present", "targets", "known")
    tensors = [tensor for part in parts for tensor in getattr(moved, part).values()]
    assert len(tensors) == 6
    assert all(tensor.device.type == "meta" for tensor in tensors)
    assert moved.inputs["text"].dtype is torch.int64
    assert moved.masks["text"].dtype is torch.bool
    assert moved.ids == ["x", "y", "z"]
    assert moved.part == "length_7"
    assert batch.targets["target"].device.type == "cpu"


def test_a_batch_without_a_target_moves_too(batch):
    batch.targets = {}
    assert batch.to("meta").targets == {}


def test_half_precision_of_a_trainer_rounds_inputs_and_no_targets(batch):
    years = torch.tensor([[1985.0], [1987.0], [2001.0]])
    given = replace(batch, targets={"target": years})
    cast = HalfPrecision("bf16-true").convert_input(given)
    assert cast.inputs["image"].dtype is torch.bfloat16
    assert cast.inputs["text"].dtype is torch.int64
    assert cast.targets["target"].dtype is torch.float32
    assert cast.targets["target"].equal(years)
    assert (cast.ids, cast.masks.keys()) == (given.ids, given.masks.keys())
    assert replace(given, ids=[]).targets["target"] is years


def test_a_modality_without_an_entry_in_present_is_there(batch):
    assert batch.has_any(["text"]).tolist() == [True, False, False]
    assert batch.has_any(["image"]).tolist() == [True, True, True]
    assert batch.has_any(["text", "image"]).tolist() == [True, True, True]
    batch.present["image"] = torch.tensor([False, False, True])
    assert batch.has_any(["text", "image"]).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("device", "asked", "expected"),
    [
        ("cuda:1", None, True),
        (torch.device("cuda"), None, True),
        ("cpu", None, False),
        ("mps", None, False),
        ("cuda", False, False),
        ("cpu", True, True),
    ],
)
def test_only_copies_to_cuda_are_not_waited_for(monkeypatch, device, asked, expected):
    seen = []
    monkeypatch.setattr(
        torch.Tensor, "to", lambda x, where, *, non_blocking: seen.append(non_blocking) or x
    )
    ones = torch.ones(2, 3)
    flags = {"target": ones > 0}
    Batch({"text": ones}, targets={"target": ones}, known=flags).to(device, non_blocking=asked)
    assert len(seen) == 3
    assert set(seen) == {expected}


def test_a_kind_of_target_is_what_sentences_call_it_and_found_by_its_option():
    assert f"the data gives {TargetKind.CLASS}" == "the data gives a class"
    assert TargetKind("a sequence") is TargetKind.SEQUENCE
    assert {option: kind.task for option, kind in TargetKind.options().items()} == {
        "class": "single_label",
        "labels": "multi_label",
        "values": "regression",
    }


@pytest.mark.parametrize("kind", TargetKind)
def test_each_kind_of_target_has_a_task_in_conf_that_trains_on_it(kind):
    path = Path(__file__).parents[1] / "conf" / "task" / f"{kind.task}.yaml"
    names = re.findall(r"_target_: perceiver\.tasks\.(\w+)", path.read_text(encoding="utf-8"))
    assert {getattr(getattr(tasks, name), "targets", kind) for name in names} == {kind}
    assert any(hasattr(getattr(tasks, name), "targets") for name in names)
