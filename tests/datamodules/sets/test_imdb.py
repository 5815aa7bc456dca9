"""data=imdb: a file a review, in folders of its label."""

import pytest

from tests.tiny import imdb


def test_reviews_carry_the_label_of_their_folder(make_data, tiny_layout):
    tiny_layout("imdb")
    data = make_data("imdb", modalities=["text"], text={"tokenizer": "bytes"})
    (batch,) = data.test_dataloader()
    assert data.class_names == ["neg", "pos"]
    for ids, label, name in zip(
        batch.inputs["text"], batch.targets["target"], batch.ids, strict=True
    ):
        text = bytes((ids[ids >= 6] - 6).tolist()).decode()
        assert text.startswith(("a bad film", "a good film")[label])
        assert name.startswith(f"test/{('neg', 'pos')[label]}/")


def test_reviews_without_a_label_are_left_out(make_data, tiny_layout):
    tiny_layout("imdb")
    data = make_data("imdb", modalities=["text"], val_share=0.4)
    data.setup()
    assert [len(split) for split in data.splits.values()] == [6, 4, 10]


def test_the_root_may_be_the_folder_itself(make_data, tmp_path):
    imdb(tmp_path)
    data = make_data("imdb", modalities=["text"], root=str(tmp_path / "aclImdb"))
    data.setup()
    assert len(data.splits["test"]) == 10


def test_absent_reviews_name_the_command(make_data):
    with pytest.raises(FileNotFoundError, match=r"data=imdb data\.root=.*=true"):
        make_data("imdb", modalities=["text"]).setup()
