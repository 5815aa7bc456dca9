"""data=sst2: GLUE's files, whose test has no labels, or files of which all have."""

import pytest


@pytest.fixture
def make(make_data):
    options = {"modalities": ["text"], "text": {"tokenizer": "bytes"}}
    return lambda **others: make_data("sst2", **options, **others)


def test_glues_dev_is_the_test_and_validation_is_taken_from_train(make, tiny_layout):
    tiny_layout("sst2")
    data = make(val_share=0.3)
    data.setup()
    assert [len(split) for split in data.splits.values()] == [14, 6, 7]
    (batch,) = data.test_dataloader()
    assert batch.ids == [f"dev.tsv:{n + 2}" for n in range(7)]
    assert batch.targets["target"].tolist() == [n % 2 for n in range(7)]
    assert bytes((batch.inputs["text"][1][:8] - 6).tolist()) == b"good dev"


def test_a_test_with_labels_is_the_test(make, sentences):
    data = make(root=str(sentences))
    data.setup()
    assert [len(split) for split in data.splits.values()] == [12, 12, 12]
    assert data.splits["test"].source.ids[0] == "test.tsv:1"


def test_absent_files_name_the_command(make):
    with pytest.raises(FileNotFoundError, match=r"data=sst2 data\.root=.*=true"):
        make().setup()


def test_a_lost_train_is_named(make, tiny_layout):
    root, _ = tiny_layout("sst2")
    (root / "SST-2" / "train.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"train\.tsv does not exist"):
        make().setup()


def test_the_real_sentences_are_read(make, real_data):
    data = make(root=str(real_data("sst2")))
    data.setup()
    assert [len(split) for split in data.splits.values()] == [6920, 872, 1821]
