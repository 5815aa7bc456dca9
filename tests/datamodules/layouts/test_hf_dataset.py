"""data=hf_dataset: what `save_to_disk` wrote, read without decoding by `datasets`."""

import json
import os

import pytest
from hydra.errors import InstantiationException

from tests.tiny import write_wav

datasets = pytest.importorskip("datasets")
KINDS = ["image", "audio", "text"]


@pytest.fixture
def make(make_data, tmp_path):
    def make(**options):
        path = str(tmp_path / "hf_dataset")
        given = {"kinds": KINDS, "path": path, "text": {"tokenizer": "bytes"}}
        data = make_data("hf_dataset", **(given | options))
        data.setup()
        return data

    return make


def test_pictures_sound_texts_and_labels_by_name(make, tiny_layout):
    tiny_layout("hf_dataset")
    data = make()
    assert data.modalities == KINDS
    assert data.class_names == ["zebra", "ape", "cow"]
    assert {n: len(s) for n, s in data.splits.items()} == {"train": 15, "val": 3, "test": 6}
    assert list(data.splits["test"].source.ids) == [f"test:{n}" for n in range(1, 7)]
    for index in range(6):
        example = data.splits["test"][0, index]
        level = float(example.inputs["image"][0, 0, 0])
        assert (example.targets["target"], round(level / 80)) == (index % 3, index % 3)
        wave = example.inputs["audio"]
        crossings = int(((wave[:-1] <= 0) & (wave[1:] > 0)).sum())
        assert crossings == pytest.approx(39 * (index % 3 + 1), abs=2)
        text = bytes((example.inputs["text"] - 6).tolist())
        assert text == b"this is number %d" % index


def test_what_was_inferred_is_plain_and_reads_the_same_again(make, tiny_layout):
    root, _ = tiny_layout("hf_dataset")
    first = make()
    found = first.inferred()
    assert found["path"] == str(root)
    again = make(**found)
    assert list(again.splits["val"].source.ids) == list(first.splits["val"].source.ids)


def test_one_dataset_without_splits_is_split(make, tmp_path):
    rows = {"text": [f"a sentence, number {n}" for n in range(30)], "label": [0, 1, 2] * 10}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "hf_dataset"))
    data = make(kinds=["text"])
    assert data.modalities == ["text"]
    assert [len(split) for split in data.splits.values()] == [21, 3, 6]


def test_rows_that_were_selected_and_shuffled_stay_so(make, tmp_path):
    rows = {"text": [f"a sentence, number {n}" for n in range(40)], "label": [0, 1] * 20}
    part = datasets.Dataset.from_dict(rows).select(range(10, 40)).shuffle(seed=3)
    part.save_to_disk(str(tmp_path / "hf_dataset"))
    data = make(kinds=["text"])
    texts = set()
    for split in data.splits.values():
        for index in range(len(split)):
            text = bytes((split[0, index].inputs["text"] - 6).tolist()).decode()
            assert int(text.split()[-1]) % 2 == split[0, index].targets["target"]
            texts.add(text)
    assert texts == set(rows["text"][10:])


def test_lists_of_labels_are_several_labels_by_name(make, tmp_path):
    feature = datasets.Sequence(datasets.ClassLabel(names=["red", "big", "old"]))
    rows = {"text": ["some words here"] * 30, "label": [[0], [1, 2], []] * 10}
    part = datasets.Dataset.from_dict(rows).cast_column("label", feature)
    part.save_to_disk(str(tmp_path / "hf_dataset"))
    data = make(kinds=["text"])
    assert (data.targets, data.class_names) == ("labels", ["red", "big", "old"])
    assert set(map(tuple, data.splits["train"].source.targets.tolist())) == {
        (1, 0, 0),
        (0, 1, 1),
        (0, 0, 0),
    }


def test_rows_without_a_label_are_left_out(make, tmp_path):
    rows = {"text": ["some words here"] * 30, "label": [0, 1, -1] * 10}
    part = datasets.Dataset.from_dict(rows)
    part = part.cast_column("label", datasets.ClassLabel(names=["a", "b"]))
    part.save_to_disk(str(tmp_path / "hf_dataset"))
    data = make(kinds=["text"])
    assert sum(len(split) for split in data.splits.values()) == 20
    assert any("10 rows have no target" in line for line in data.summary())


def test_sound_kept_as_paths_is_read_from_there_if_allowed(make, tmp_path):
    for n in range(30):
        write_wav(tmp_path / "sound" / f"{n}.wav", 0.1, 300)
    rows = {
        "sound": [{"bytes": None, "path": str(tmp_path / f"sound/{n}.wav")} for n in range(30)],
        "label": [0, 1] * 15,
    }
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "hf_dataset"))
    data = make(kinds=["audio"], root=str(tmp_path))
    assert data.splits["test"][0, 1].inputs["audio"].shape == (800,)
    with pytest.raises(ValueError, match=r"lies outside data\.root"):
        make(kinds=["audio"], root=str(tmp_path / "hf_dataset"))


def test_a_folder_that_is_no_dataset_says_how_to_make_one(make, tmp_path):
    (tmp_path / "hf_dataset").mkdir()
    with pytest.raises(FileNotFoundError, match=r"is not a dataset on the disk.*save_to_disk"):
        make()


def test_without_a_path_the_option_is_named(make):
    with pytest.raises(InstantiationException, match=r"needs data\.path=FOLDER"):
        make(path=None)


@pytest.fixture
def saved(tmp_path):
    rows = {"text": [f"a sentence, number {n}" for n in range(30)], "label": [0, 1, 2] * 10}
    part = datasets.Dataset.from_dict(rows)
    datasets.DatasetDict(train=part, test=part).save_to_disk(str(tmp_path / "hf_dataset"))
    return tmp_path / "hf_dataset"


ARROW = "data-00000-of-00001.arrow"


@pytest.mark.parametrize("name", [ARROW, "state.json", "dataset_info.json"])
def test_no_link_leads_out_of_it_unless_that_is_allowed(make, saved, tmp_path, name):
    path = saved / "train" / name
    path.rename(tmp_path / "secret")
    path.symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match=r"lies outside data\.root"):
        make(kinds=["text"])
    assert len(make(kinds=["text"], outside=True).splits["test"]) == 30


def test_no_linked_folder_is_read(make, saved, tmp_path):
    (saved / "train").rename(tmp_path / "secret")
    (saved / "train").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match=r"train is a link: .*data\.outside=true"):
        make(kinds=["text"])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("train/state.json", lambda t: t["_data_files"][0].update(filename=f"../test/{ARROW}")),
        ("train/state.json", lambda t: t["_data_files"][0].update(filename="/etc/passwd")),
        ("train/state.json", lambda t: t.update(_data_files=[{}])),
        ("dataset_dict.json", lambda t: t.update(splits=["train", "../hf_dataset/test"])),
        ("dataset_dict.json", lambda t: t.pop("splits")),
        ("train/state.json", lambda t: t.pop("_fingerprint")),
    ],
)
def test_a_description_that_leads_elsewhere_or_nowhere_is_refused(make, saved, name, change):
    told = json.loads((saved / name).read_text())
    change(told)
    (saved / name).write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"none of this folder|describes no|no whole dataset"):
        make(kinds=["text"])


def test_a_pipe_in_it_is_not_waited_for(make, saved):
    (saved / "train" / ARROW).unlink()
    os.mkfifo(saved / "train" / ARROW)
    with pytest.raises(ValueError, match="is no plain file"):
        make(kinds=["text"])
