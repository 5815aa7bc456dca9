"""MixUp and CutMix: the target says of every example what its inputs are made of."""

import pytest
import torch
from torch.nn.functional import one_hot
from torch.testing import assert_close
from torchvision.transforms import v2

from datamodules.core.collate import Collator, Example
from datamodules.readers import Field
from datamodules.transforms.mix import (
    CutMix,
    MixUp,
    cut_boxes,
    cut_spans,
    draw_partners,
    splice,
)
from perceiver.types import Batch

COUNT = 7


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def labelled(count=COUNT, *, ragged=False, present=None):
    """Example i is i everywhere: channel i of pictures is 1, ids are 6 + i, sound is i + 1."""
    eye = torch.eye(count)
    lengths = torch.arange(11, 11 + count) if ragged else torch.full((count,), 11)
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    number = torch.arange(count)[:, None]
    inputs = {
        "image": eye[:, :, None, None].expand(-1, -1, 12, 20).clone(),
        "video": eye[:, None, :, None, None].expand(-1, 3, -1, 10, 10).clone(),
        "array": eye[:, None, :].expand(-1, 13, -1).clone(),
        "text": torch.where(mask, 6 + number, 0),
    }
    return Batch(
        inputs=inputs,
        masks={"text": mask} if ragged else {},
        present=present or {},
        targets={"target": eye},
    )


def contents(batch, name):
    """(b, count) what share of each example comes from whom, measured in the inputs."""
    values = batch.inputs[name]
    if name == "text":
        mask = batch.masks.get(name, torch.ones_like(values, dtype=torch.bool))
        counts = (one_hot(values.clamp(min=6) - 6, COUNT) * mask[..., None]).sum(1).float()
        return counts / counts.sum(1, keepdim=True)
    return {
        "image": lambda: values.mean((2, 3)),
        "video": lambda: values.mean((1, 3, 4)),
        "array": lambda: values.mean(1),
    }[name]()


@pytest.mark.parametrize("mix", [MixUp(alpha=1.0), CutMix(alpha=1.0)], ids=["mixup", "cutmix"])
@pytest.mark.parametrize("ragged", [False, True])
def test_the_target_is_the_mean_over_modalities_of_what_the_inputs_hold(mix, ragged):
    for _ in range(20):
        mixed = mix(labelled(ragged=ragged))
        shares = [contents(mixed, name) for name in mixed.inputs]
        assert_close(mixed.targets["target"], torch.stack(shares).mean(0))
        assert ((mixed.targets["target"] > 0).sum(1) <= 2).all()


@pytest.mark.parametrize("mix", [MixUp(alpha=1.0), CutMix(alpha=1.0)], ids=["mixup", "cutmix"])
def test_all_modalities_share_one_partner_and_about_one_share(mix):
    batch = labelled()
    for _ in range(20):
        mixed = mix(batch)
        shares = [contents(mixed, name) for name in mixed.inputs]
        for share in shares[1:]:
            # Sides of boxes on 12 × 20 and 10 × 10 are half a pixel off at most: 0.067 and 0.1.
            assert (share - shares[0]).abs().max() < 0.167
        for row in range(COUNT):
            others = {int(j) for s in shares for j in s[row].nonzero()[:, 0]} - {row}
            assert len(others) <= 1


def test_shares_are_drawn_from_the_beta_distribution():
    batch = Batch(inputs={"array": torch.eye(COUNT)[:, None]}, targets={"target": torch.eye(COUNT)})
    for alpha in (0.3, 2.0):
        mix = MixUp(alpha=alpha)
        kept = torch.stack([mix(batch).targets["target"].diagonal() for _ in range(600)]).flatten()
        # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)).
        variance = 1 / (4 * (2 * alpha + 1))
        assert kept.mean().item() == pytest.approx(0.5, abs=4 * (variance / len(kept)) ** 0.5)
        assert kept.var().item() == pytest.approx(variance, rel=0.08)


def test_a_share_of_the_examples_stays_as_it_is():
    batch = labelled()
    kept = [
        (MixUp(alpha=1.0, p=0.3)(batch).targets["target"].diagonal() == 1).float()
        for _ in range(300)
    ]
    share = torch.stack(kept).mean().item()
    assert share == pytest.approx(0.7, abs=4 * (0.21 / 2100) ** 0.5)
    assert torch.equal(MixUp(alpha=1.0, p=0.0)(batch).targets["target"], batch.targets["target"])


@pytest.mark.parametrize("mix", [MixUp(alpha=1.0), CutMix(alpha=1.0)], ids=["mixup", "cutmix"])
def test_only_examples_with_the_same_modalities_are_mixed(mix):
    present = {"text": torch.tensor([True, True, False, False, True, True, True])}
    present["array"] = torch.tensor([True, True, True, True, False, False, False])
    present["image"] = present["video"] = torch.tensor([True] * 6 + [False])
    batch = labelled(present=present)
    for name, here in present.items():
        batch.inputs[name][~here] = 0
    groups = [{0, 1}, {2, 3}, {4, 5}, {6}]
    for _ in range(10):
        mixed = mix(batch)
        assert mixed.present is batch.present
        for row in range(COUNT):
            group = next(g for g in groups if row in g)
            assert set(mixed.targets["target"][row].nonzero()[:, 0].tolist()) <= group
        assert torch.equal(mixed.targets["target"][6], batch.targets["target"][6])
        # The modality that is not there has no say: rows 2 and 3 have no text.
        seen = [contents(mixed, name)[2:4] for name in ("image", "video", "array")]
        assert_close(mixed.targets["target"][2:4], torch.stack(seen).mean(0))


def test_mixing_leaves_the_given_batch_alone():
    batch, same = labelled(ragged=True), labelled(ragged=True)
    for mix in (MixUp(alpha=1.0), CutMix(alpha=1.0)):
        mix(batch)
        for name in batch.inputs:
            assert torch.equal(batch.inputs[name], same.inputs[name])
        assert torch.equal(batch.masks["text"], same.masks["text"])


def test_mixed_numbers_are_weighted_means():
    values, partner = torch.randn(3, 2, 5), torch.tensor([1, 2, 0])
    keep = torch.tensor([0.25, 1.0, 0.5])
    mixed, _, share = MixUp(alpha=1.0).mix_numbers(values, None, partner, keep)
    assert_close(mixed[0], 0.25 * values[0] + 0.75 * values[1])
    assert_close(mixed[1], values[1])
    assert_close(mixed[2], 0.5 * values[2] + 0.5 * values[0])
    assert torch.equal(share, keep)


def test_of_two_mixed_sounds_the_longer_sets_the_length():
    values = torch.tensor([[1.0, 2.0, 0.0], [3.0, 4.0, 5.0], [6.0, 0.0, 0.0]])
    mask = values > 0
    keep, partner = torch.tensor([0.5, 0.5, 1.0]), torch.tensor([1, 0, 1])
    mixed, mask, _ = MixUp(alpha=1.0).mix_numbers(values, mask, partner, keep)
    assert mixed[:2].tolist() == [[2.0, 3.0, 2.5], [2.0, 3.0, 2.5]]
    assert mask.tolist() == [[True] * 3, [True] * 3, [True, False, False]]


def test_boxes_lie_inside_have_the_proportions_and_come_from_the_same_place():
    values = torch.arange(2 * 12 * 20.0).reshape(2, 1, 12, 20)
    keep, partner = torch.tensor([0.75, 1.0]), torch.tensor([1, 0])
    corners = set()
    for _ in range(300):
        mixed, _, share = cut_boxes(values, None, partner, keep)
        rows, columns = (mixed[0, 0] != values[0, 0]).nonzero().unbind(1)
        # Half of each side: a quarter of the area.
        assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (6, 10)
        assert len(rows) == 60
        assert torch.equal(mixed[0, 0, rows, columns], values[1, 0, rows, columns])
        assert share.tolist() == [0.75, 1.0]
        assert torch.equal(mixed[1], values[1])
        corners.add((int(rows.min()), int(columns.min())))
    assert {row for row, _ in corners} == set(range(7))
    assert {column for _, column in corners} == set(range(11))


def test_boxes_of_films_end_where_the_shorter_one_does():
    values = torch.stack([torch.zeros(4, 1, 6, 6), torch.ones(4, 1, 6, 6)])
    mask = torch.tensor([[True] * 4, [True, True, True, False]])
    keep, partner = torch.tensor([0.75, 0.75]), torch.tensor([1, 0])
    mixed, _, share = cut_boxes(values, mask, partner, keep)
    assert mixed[0].sum((1, 2, 3)).tolist() == [9, 9, 9, 0]
    assert share.tolist() == pytest.approx([1 - 27 / (4 * 36), 0.75])


def test_spans_come_in_one_piece_from_anywhere_in_the_partner():
    values = torch.stack([torch.arange(10.0), torch.arange(100.0, 110.0)])
    mask = torch.tensor([[True] * 10, [True] * 6 + [False] * 4])
    keep, partner = torch.tensor([0.6, 0.5]), torch.tensor([1, 0])
    starts, sources = set(), set()
    for _ in range(300):
        mixed, _, share = cut_spans(values, mask, partner, keep)
        foreign = (mixed[0] >= 100).nonzero()[:, 0]
        assert foreign.tolist() == list(range(int(foreign[0]), int(foreign[0]) + 4))
        first = int(mixed[0, foreign[0]])
        assert mixed[0, foreign].tolist() == list(range(first, first + 4))
        starts.add(int(foreign[0]))
        sources.add(first)
        assert share.tolist() == pytest.approx([0.6, 0.5])
        assert (mixed[1, 6:] == values[1, 6:]).all()
    assert starts == set(range(7))
    assert sources == {100, 101, 102}


def test_a_span_is_no_longer_than_the_partner():
    values, mask = torch.ones(2, 10), torch.tensor([[True] * 10, [True] * 2 + [False] * 8])
    values[1] = 5
    _, _, share = cut_spans(values, mask, torch.tensor([1, 0]), torch.tensor([0.1, 1.0]))
    assert share.tolist() == pytest.approx([0.8, 1.0])


def test_texts_are_one_beginning_and_the_other_end():
    values = torch.tensor([[10, 11, 12, 13, 0, 0], [20, 21, 22, 23, 24, 25]])
    mask = values > 0
    keep, partner = torch.tensor([0.5, 0.5]), torch.tensor([1, 0])
    mixed, new_mask, share = splice(values, mask, partner, keep)
    assert mixed.tolist() == [[10, 11, 23, 24, 25, 0], [20, 21, 22, 12, 13, 0]]
    assert new_mask.tolist() == [[True] * 5 + [False]] * 2
    assert share.tolist() == pytest.approx([2 / 5, 3 / 5])


def test_a_text_kept_whole_stays_as_it_is_and_none_becomes_empty():
    values = torch.tensor([[10, 11, 12], [20, 0, 0]])
    mask = values > 0
    whole, new_mask, share = splice(values, mask, torch.tensor([1, 0]), torch.ones(2))
    assert torch.equal(whole, values)
    assert torch.equal(new_mask, mask)
    assert share.tolist() == [1, 1]
    for keep in torch.linspace(0, 1, 23):
        _, new_mask, _ = splice(values, mask, torch.tensor([1, 0]), keep.expand(2))
        assert new_mask.any(1).all()


def test_halves_that_round_alike_fill_a_text_neither_to_nothing_nor_beyond_its_width():
    half, partner = torch.tensor([0.5, 0.5]), torch.tensor([1, 0])
    mixed, mask, share = splice(torch.tensor([[10], [20]]), None, partner, half)
    assert (mixed.tolist(), mask, share.tolist()) == ([[10], [20]], None, [1, 1])
    values = torch.tensor([[10, 11, 12], [20, 21, 22]])
    mixed, mask, share = splice(values, None, partner, half)
    assert mixed.tolist() == [[10, 11, 22], [20, 21, 12]]
    assert mask is None
    assert share.tolist() == pytest.approx([2 / 3, 2 / 3])
    assert splice(values, torch.ones(2, 3).bool(), partner, half)[1].all(), "kept, as it was given"
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    assert not splice(torch.zeros_like(values), nothing, partner, half)[1].any()


def test_partners_are_a_permutation_without_fixed_points_within_patterns():
    pattern = torch.tensor([[1, 0], [1, 1], [1, 0], [0, 1], [1, 1], [1, 0]]).bool()
    seen = set()
    for _ in range(60):
        partner = draw_partners(pattern)
        assert sorted(partner.tolist()) == list(range(6))
        assert torch.equal(pattern[partner], pattern)
        assert partner[3] == 3
        assert all(partner[i] != i for i in (0, 1, 2, 4, 5))
        seen.add(tuple(partner.tolist()))
    assert len(seen) == 2  # the two cycles of three; the pair has one


def test_an_example_without_anything_keeps_its_target():
    nothing = {name: torch.tensor([False] * 2 + [True] * 5) for name in labelled().inputs}
    assert torch.equal(
        MixUp(alpha=1.0)(labelled(present=nothing)).targets["target"][:2], torch.eye(7)[:2]
    )


FIELDS = {"audio": Field((), is_ragged=True)}


def examples(seed=5):
    rows = [torch.full((3 + i,), float(i)) for i in range(3)]
    return [Example({"audio": row}, {"target": i}, str(i), seed) for i, row in enumerate(rows)]


def test_the_collator_mixes_classes_by_the_first_example_s_seed():
    collate = Collator(FIELDS, mix=MixUp(alpha=1.0), num_classes=4)
    state = torch.get_rng_state()
    one, same, other = collate(examples(5)), collate(examples(5)), collate(examples(6))
    assert torch.equal(torch.get_rng_state(), state)
    assert one.targets["target"].shape == (3, 4)
    assert_close(one.targets["target"].sum(1), torch.ones(3))
    assert torch.equal(one.inputs["audio"], same.inputs["audio"])
    assert not torch.equal(one.targets["target"], other.targets["target"])


def test_torchvision_chooses_between_mixes():
    choice = v2.RandomChoice([MixUp(alpha=1.0), CutMix(alpha=1.0)], p=[0.5, 0.5])
    averaged = 0
    for _ in range(200):
        image = choice(labelled()).inputs["image"]
        averaged += bool(((image > 0) & (image < 1)).any())
    assert averaged / 200 == pytest.approx(0.5, abs=0.15)


def test_wrong_options_and_targets_are_refused():
    with pytest.raises(ValueError, match=r"MixUp\(alpha=0, p=1.0\): expected alpha above 0"):
        MixUp(alpha=0)
    with pytest.raises(ValueError, match=r"CutMix\(alpha=1.0, p=2\)"):
        CutMix(alpha=1.0, p=2)
    with pytest.raises(ValueError, match="one-hot"):
        MixUp(alpha=1.0)(
            Batch(inputs={"array": torch.ones(2, 3)}, targets={"target": torch.tensor([0, 1])})
        )


@pytest.mark.parametrize("mix", [MixUp(alpha=1.0), CutMix(alpha=1.0)], ids=["mixup", "cutmix"])
def test_who_has_no_partner_stays_as_it_is(mix):
    batch = Batch(
        inputs={"array": torch.randn(1, 11, 3), "text": torch.arange(6, 23)[None]},
        targets={"target": torch.ones(1, 1)},
    )
    for _ in range(5):
        mixed = mix(batch)
        assert all(torch.equal(mixed.inputs[name], batch.inputs[name]) for name in batch.inputs)


def test_a_mixed_target_is_known_where_those_of_both_examples_are():
    known = torch.tensor([True, False, True, True, False, True, True])
    batch = Batch(
        inputs={"array": torch.eye(7)},
        targets={"target": torch.eye(7)},
        known={"target": known},
    )
    for _ in range(20):
        mixed = MixUp(alpha=1.0, p=0.5)(batch)
        made_of = mixed.targets["target"] > 0
        wanted = [bool(known[row].all()) for row in made_of]
        assert mixed.known["target"].tolist() == wanted
