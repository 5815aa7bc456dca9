"""data=ag_news: rows of class, title, description."""

import pytest


@pytest.fixture
def make(make_data):
    options = {"modalities": ["text"], "text": {"tokenizer": "bytes"}}
    return lambda **others: make_data("ag_news", **options, **others)


def test_news_are_titles_and_descriptions_with_their_class(make, tiny_layout):
    tiny_layout("ag_news")
    data = make()
    (batch,) = data.test_dataloader()
    assert data.class_names == ["World", "Sports", "Business", "Sci/Tech"]
    assert batch.targets["target"].tolist() == [n % 4 for n in range(8)]
    ids = batch.inputs["text"][3]
    assert bytes((ids[ids >= 6] - 6).tolist()).decode() == 'Title "3" Said, test 3'
    assert batch.ids[3] == "test.csv:4"
    assert len(data.splits["val"]) == 4


@pytest.mark.parametrize("row", ['"5","a","b"', '"1","a"', '"Sports","a","b"'])
def test_a_row_of_another_form_is_named(make, tiny_layout, row):
    root, _ = tiny_layout("ag_news")
    with (root / "train.csv").open("a") as file:
        file.write(row + "\n")
    with pytest.raises(ValueError, match=r"train\.csv, row 21 is not"):
        make().setup()


def test_absent_files_name_the_command(make):
    with pytest.raises(FileNotFoundError, match=r"data=ag_news data\.root=.*=true"):
        make().setup()


def test_both_files_are_fetched_with_their_checksums(make, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "datamodules.sets.ag_news.download",
        lambda url, path, *, checksum: calls.append((url[-10:], path, checksum[:4])),
    )
    make(download=True).prepare_data()
    folder = tmp_path / "ag_news"
    assert calls == [
        ("/train.csv", folder / "train.csv", "md5:"),
        ("v/test.csv", folder / "test.csv", "md5:"),
    ]
