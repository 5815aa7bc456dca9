"""Problems of the memory papers: what is asked, what is right, and where the draws come from."""

import numpy as np
import pytest
import torch

NAMES = ("copy", "associative_recall", "graph_traversal", "associative_retrieval")


@pytest.fixture
def make(make_data):
    def build(name, **overrides):
        overrides = {"batch_size": 7, "batches": {"train": 5, "val": 3, "test": 2}} | overrides
        return make_data(name, **overrides)

    return build


def drawn(data, size, seed=3):
    inputs, target, scored = data.draw(size, data.batch_size, np.random.default_rng(seed))
    return inputs, target, np.broadcast_to(scored, inputs.shape[:2])


def test_copy_asks_for_the_vectors_after_the_mark(make):
    data = make("copy")
    inputs, target, scored = drawn(data, 5)
    assert inputs.shape == (7, 11, 9)
    assert (inputs[:, 5, -1] == 1).all()
    assert inputs[..., -1].sum() == 7  # one mark
    assert (inputs[:, 6:] == 0).all()
    assert scored[0].nonzero()[0].tolist() == [6, 7, 8, 9, 10]
    assert (target[:, 6:] == inputs[:, :5, :8]).all()
    assert 0.3 < inputs[:, :5, :8].mean() < 0.7


def test_recall_asks_for_the_item_after_the_one_shown_again(make):
    inputs, target, scored = drawn(make("associative_recall"), 4)
    assert inputs.shape == (7, 4 * 4 + 8, 8)
    assert (inputs[:, [0, 4, 8, 12], 6] == 1).all()
    assert (inputs[:, [16, 20], 7] == 1).all()
    assert (inputs[:, 21:] == 0).all()
    assert scored[0].nonzero()[0].tolist() == [21, 22, 23]
    for row, answer in zip(inputs, target, strict=True):
        items = [row[start + 1 : start + 4, :6] for start in (0, 4, 8, 12)]
        asked = next(i for i, item in enumerate(items) if (item == row[17:20, :6]).all())
        assert (answer[21:] == items[asked + 1]).all()


def test_graph_asks_for_each_node_of_a_path(make):
    inputs, target, scored = drawn(make("graph_traversal"), 5)
    assert inputs.shape == (7, 10 + 3, 12 + 2 + 12 + 1)
    assert scored[0].nonzero()[0].tolist() == [10, 11, 12]
    for row, answer in zip(inputs, target, strict=True):
        edges = {}
        for step in row[:10]:
            node, relation, to = step[:12].argmax(), step[12:14].argmax(), step[14:26].argmax()
            assert step.sum() == 3
            assert to != node
            edges[node, relation] = to
        assert len(edges) == 10
        node = row[10, :12].argmax()
        for step, right in zip(row[10:], answer[10:], strict=True):
            assert step[-1] == 1
            assert step[14:26].sum() == 0
            node = edges[node, step[12:14].argmax()]
            assert node == right
        assert row[11:, :12].sum() == 0


def test_retrieval_asks_for_the_digit_behind_a_letter(make):
    inputs, target, scored = drawn(make("associative_retrieval"), 6)
    assert inputs.shape == (7, 15, 37)
    assert (inputs.sum(-1) == 1).all()
    assert scored[0].nonzero()[0].tolist() == [14]
    for row, answer in zip(inputs, target, strict=True):
        letters = row[:12:2, :26].argmax(-1).tolist()
        assert len(set(letters)) == 6
        assert (row[[12, 13], -1] == 1).all()
        pair = letters.index(row[14, :26].argmax())
        assert row[2 * pair + 1, 26:36].argmax() == answer[14]


@pytest.mark.parametrize("name", NAMES)
def test_draws_depend_on_seed_epoch_and_index_alone(make, name):
    train = make(name).split("train")
    again, other = make(name).split("train"), make(name, seed=1).split("train")
    assert torch.equal(train[2, 3].inputs["sequence"], again[2, 3].inputs["sequence"])
    assert torch.equal(train[2, 3].targets["target"], again[2, 3].targets["target"])
    for different in (train[3, 3], train[2, 4], other[2, 3]):
        assert different.inputs["sequence"].shape != train[2, 3].inputs[
            "sequence"
        ].shape or not torch.equal(different.inputs["sequence"], train[2, 3].inputs["sequence"])


def test_evaluation_repeats_itself_for_every_seed_and_is_not_what_training_draws(make):
    equal = {"sizes": {name: [9, 9] for name in ("train", "val", "test")}, "longer": []}
    data, other = make("copy", **equal), make("copy", **equal, seed=1)
    splits = {name: data.split(name) for name in ("train", "val", "test")}
    for name in ("val", "test"):
        assert torch.equal(
            splits[name][0, 1].inputs["sequence"], splits[name][5, 1].inputs["sequence"]
        )
        assert torch.equal(
            splits[name][0, 1].inputs["sequence"], other.split(name)[0, 1].inputs["sequence"]
        )
    seen = {
        (name, tuple(row.flatten().tolist()))
        for name, split in splits.items()
        for index in range(len(split))
        for row in split[0, index].inputs["sequence"]
    }
    assert len({row for _, row in seen}) == len(seen) == 7 * 10  # no sequence is in two splits


def test_test_draws_trained_sizes_and_then_each_longer_one(make):
    split = make("copy").split("test")
    assert [split[0, index].part for index in range(2, 6)] == [
        *("length_40", "length_40", "length_80", "length_80")
    ]
    assert not any(split[0, index].part for index in range(2))


def test_loader_yields_whole_batches(make):
    batches = list(make("graph_traversal").val_dataloader())
    assert len(batches) == 3
    assert all(
        len(batch) == 7 and batch.inputs["sequence"].dtype == torch.float32 for batch in batches
    )
    assert batches[0].targets["target"].dtype == torch.int64
    assert batches[0].known["target"].dtype == torch.bool


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("copy", {"bits": 5}, "data.input_dim=9, but the problems have 6: set 6"),
        ("copy", {"sizes": {"val": [5, 4]}}, r"data.sizes.val=\[5, 4\], expected"),
        ("copy", {"longer": [15]}, r"data.longer names 15, which data.sizes.test=\[1, 20\] has"),
        ("copy", {"batches": {"train": 0}}, "data.batches.train=0, at least 1"),
        ("copy", {"batch_size": 0}, "data.batch_size=0, expected at least 1"),
        ("associative_recall", {"sizes": {"train": [1, 3]}}, "size of 1 is below the smallest, 2"),
        ("graph_traversal", {"longer": [13]}, "13 nodes need as many labels: data.labels=12"),
        ("associative_retrieval", {"longer": [27]}, "27 pairs need as many letters"),
    ],
)
def test_options_that_make_no_problems_are_refused(make, name, options, message):
    with pytest.raises(Exception, match=message):
        make(name, **options)
