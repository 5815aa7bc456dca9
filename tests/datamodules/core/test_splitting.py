"""Split, draw_missing and hold_out: randomness that can be repeated."""

import numpy as np
import pytest
import torch

from datamodules.core.bad_examples import BadExamples
from datamodules.core.dataset import Source, Split
from datamodules.core.decoding import decode
from datamodules.core.splitting import draw_missing, hold_out
from datamodules.loading.seeding import check_range, derive_seed, torch_state_kept
from datamodules.readers.text import TextReader


class Draws(Source):
    """An example is what its generator draws."""

    def read(self, index, rng):
        return {"audio": torch.tensor([rng.random()]), "text": torch.tensor([index])}


def split(
    *,
    training,
    seed=0,
    augment=None,
    transform=None,
    readers=None,
    modalities=("audio", "text"),
    lacking=None,
):
    source = Draws(targets=[0, 1, 2], ids=["a", "b", "c"])
    if lacking is None:
        lacking = np.zeros((3, len(modalities)), dtype=bool)
    return Split(
        source,
        modalities=modalities,
        lacking=lacking,
        training=training,
        seed=seed,
        augment=augment,
        transform=transform,
        readers=readers,
    )


def draw(dataset, epoch, index):
    return dataset[epoch, index].inputs["audio"].item()


def test_training_draws_depend_on_seed_epoch_and_index():
    data = split(training=True)
    draws = {(e, i): draw(data, e, i) for e in range(3) for i in range(3)}
    assert len(set(draws.values())) == 9
    assert all(draw(split(training=True), e, i) == value for (e, i), value in draws.items())
    assert draw(split(training=True, seed=1), 0, 0) != draws[0, 0]


def test_evaluation_draws_ignore_the_epoch():
    data = split(training=False)
    assert draw(data, 0, 1) == draw(data, 5, 1)
    assert draw(data, 0, 1) != draw(data, 0, 2)


def test_a_plain_index_reads_the_first_epoch():
    data = split(training=True)
    assert data[2].inputs["audio"] == data[0, 2].inputs["audio"]


def test_augmentation_applies_in_training_only_and_leaves_the_models_generator_alone():
    augment = {"audio": [lambda wave: wave + torch.rand(1)]}
    state = torch.get_rng_state()
    first = draw(split(training=True, augment=augment), 0, 0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert draw(split(training=True, augment=augment), 0, 0) == first
    assert first != draw(split(training=True), 0, 0)
    plain, augmented = split(training=False), split(training=False, augment=augment)
    assert draw(augmented, 0, 0) == draw(plain, 0, 0)


def test_images_reach_transforms_and_the_collator_as_bytes():
    class Bytes(Source):
        def read(self, index, rng):
            return {"image": torch.tensor([0, 255], dtype=torch.uint8)}

    seen = []

    def watch(image):
        seen.append(image.dtype)
        return image

    data = Split(
        Bytes(targets=[0], ids=["a"]),
        modalities=["image"],
        lacking=np.zeros((1, 1), dtype=bool),
        training=True,
        seed=0,
        augment={"image": [watch]},
    )
    assert data[0, 0].inputs["image"].tolist() == [0, 255]
    assert seen == [torch.uint8]


def test_what_an_example_lacks_is_none_and_not_augmented():
    lacking = np.array([[True, False], [False, True], [False, False]])
    data = split(training=True, lacking=lacking, augment={"audio": [lambda wave: wave + 1]})
    found = [[name for name, value in data[0, i].inputs.items() if value is None] for i in range(3)]
    assert found == [["audio"], ["text"], []]


def test_missing_modalities_follow_their_probabilities_and_one_always_stays():
    absent = np.zeros((2003, 3), dtype=bool)
    lacking = draw_missing([0.3, 0.0, 0.0], absent=absent, rng=np.random.default_rng(0))
    # Four standard deviations of a binomial share around the probability.
    assert abs(lacking[:, 0].mean() - 0.3) < 4 * (0.3 * 0.7 / 2003) ** 0.5
    assert not lacking[:, 1:].any()
    lacking = draw_missing([1.0, 1.0, 1.0], absent=absent, rng=np.random.default_rng(0))
    assert (lacking.sum(axis=1) == 2).all()
    assert (lacking.mean(axis=0) < 0.8).all(), "always the same modality stays"


def test_what_is_absent_to_begin_with_is_never_the_one_that_stays():
    absent = np.tile([True, False, False], (101, 1))
    lacking = draw_missing([0.0, 1.0, 1.0], absent=absent, rng=np.random.default_rng(0))
    assert lacking[:, 0].all()
    assert (lacking[:, 1:].sum(axis=1) == 1).all()


def test_hold_out_takes_the_share_of_every_group():
    groups = ["a"] * 20 + ["b"] * 30 + ["c"] * 3 + ["d"]
    held_out = hold_out(groups, 0.1, rng=np.random.default_rng(0))
    counts = {
        g: sum(h for h, name in zip(held_out, groups, strict=True) if name == g) for g in "abcd"
    }
    assert counts == {"a": 2, "b": 3, "c": 1, "d": 0}
    with pytest.raises(ValueError, match="inside"):
        hold_out(groups, 1.5, rng=np.random.default_rng(0))


def test_derived_seeds_differ_between_neighbours_and_positions():
    seeds = {derive_seed(a, b) for a in range(7) for b in range(7)}
    assert len(seeds) == 49
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_state_of_torch_is_restored_even_after_an_error():
    state = torch.get_rng_state()

    def draw_and_fail():
        with torch_state_kept():
            torch.default_generator.manual_seed(5)
            torch.rand(3)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        draw_and_fail()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("bounds", [[2, 1], [-1, 1], [0, 3], [1], 1, "12", ["a", "b"], None])
def test_ranges_that_are_no_ranges_are_refused(bounds):
    with pytest.raises(ValueError, match=r"noise=.*expected"):
        check_range("noise", bounds, low=0, high=2)


def test_transforms_apply_always_and_after_augmentation():
    steps = {
        "augment": {"audio": [lambda wave: wave * 0 + 3]},
        "transform": {"audio": [lambda wave: wave * 2, lambda wave: wave + 1]},
    }
    assert draw(split(training=True, **steps), 0, 0) == 7
    before = draw(split(training=False), 0, 0)
    assert draw(split(training=False, **steps), 0, 0) == pytest.approx(2 * before + 1)


def test_what_transforms_make_too_long_is_cut():
    readers = {"text": TextReader(max_length=4)}
    longer = {"text": [lambda ids: ids.repeat(7)]}
    for training in (True, False):
        found = split(training=training, transform=longer, readers=readers)[0, 2].inputs["text"]
        assert found.tolist() == [2, 2, 2, 2]


def test_a_transform_that_fails_is_named_with_the_example():
    def fail(wave):
        raise RuntimeError("no such luck")

    data = split(training=True, augment={"audio": [fail]})
    with pytest.raises(ValueError, match=r"data\.augment\.audio\[0\] .* example b.*no such luck"):
        data[0, 1]
    data = split(training=False, transform={"text": [fail]})
    with pytest.raises(ValueError, match=r"data\.transform\.text\[0\]"):
        data[0, 1]


def test_examples_bring_a_seed_of_their_own_for_their_batch():
    train, test = split(training=True), split(training=False)
    seeds = [train[epoch, index].seed for epoch in range(3) for index in range(3)]
    assert len(set(seeds)) == 9
    assert train[1, 2].seed == split(training=True)[1, 2].seed
    assert test[0, 1].seed == 0


def test_an_example_is_the_same_whoever_shares_its_batch():
    augment = {"audio": [lambda wave: wave + torch.rand(1)], "text": [lambda ids: ids + 1]}
    lacking = np.array([[True, False], [False, True], [False, False]])
    data = split(training=True, augment=augment, lacking=lacking)
    keys = [(5, 2), (3, 0), (5, 1), (3, 2)]
    for key, example in zip(keys, data.__getitems__(keys), strict=True):
        alone = data[key]
        assert (example.id, example.targets["target"]) == (alone.id, alone.targets["target"])
        for name, value in alone.inputs.items():
            assert (example.inputs[name] is None) == (value is None)
            assert value is None or torch.equal(example.inputs[name], value)


def test_one_broken_cell_is_named_and_the_others_are_read():
    cells = ["elf", b"\xff", "a"]
    reader = TextReader(max_length=4)
    common = {"name": "text", "reader": reader, "ids": ["p", "q", "r"]}
    with pytest.raises(ValueError, match="example q is not UTF-8"):
        decode(cells, bad_examples=None, **common)
    broken = BadExamples(budget=0.5, total=3)
    found = decode(cells, bad_examples=broken, **common)
    assert [None if ids is None else len(ids) for ids in found] == [3, None, 1]
    assert [row["id"] for row in broken.rows()] == ["q"]
