"""A stranger's shards harm nobody: they run no code and reach nothing outside their folder."""

import json
import os
import pickle
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules.layouts.shards.data import load_array
from tests.datamodules.sentences import shards


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def strange(packed, tmp_path):
    """strange(name, change) → the shards with one file rewritten by `change`."""
    import shutil

    folder = tmp_path / "strange"
    shutil.copytree(packed, folder)

    def make(name, change):
        path = folder / name
        path.write_bytes(change(path.read_bytes()))
        return str(folder)

    return make


def described(**changes):
    def change(raw):
        return json.dumps(json.loads(raw) | changes).encode()

    return change


@pytest.mark.parametrize(
    "name",
    ["../secret.tar", "/etc/passwd", "a/b.tar", "..", "x.pickle", ".hidden.tar", "https://x/a.tar"],
)
def test_no_shard_outside_the_folder_is_read(strange, name):
    root = strange("dataset.json", described(shards={"train": [name], "val": [], "test": []}))
    with pytest.raises(ValueError, match=r"names .* which is no shard of this folder"):
        shards(root).setup()


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"targets": "os.system"},
        {"modalities": ["text/../../x"]},
        {"classes": [1, 2]},
        {"surprise": 1},
        {"kinds": {"text": {"max_length": 5, "_target_": "os.system"}}},
    ],
    ids=str,
)
def test_a_description_that_says_anything_else_is_refused(strange, changes):
    with pytest.raises(ValueError, match=r"dataset\.json"):
        shards(strange("dataset.json", described(**changes))).setup()


@pytest.mark.parametrize("raw", [b"", b"[]", b"\x80\x04.", b"{}"])
def test_what_is_no_description_or_index_is_refused(strange, raw):
    root = strange("dataset.json", lambda _: raw)
    with pytest.raises(ValueError, match=r"dataset\.json describes no shards"):
        shards(root).setup()


def test_a_tokenizer_is_the_readers_own(strange):
    kinds = {"text": {"max_length": 5, "tokenizer": "/etc/passwd"}}
    root = strange("dataset.json", described(kinds=kinds))
    with pytest.raises(ValueError, match=r"name your copy with data\.text\.tokenizer=FILE"):
        shards(root, modalities=["text"]).setup()


def test_pickles_are_never_loaded(tmp_path):
    trap = tmp_path / "trap"
    content = BytesIO()
    np.save(content, np.array([Bomb(trap)], dtype=object), allow_pickle=True)
    for raw in (content.getvalue(), pickle.dumps(Bomb(trap)), b"\x93NUMPY\x01\x00"):
        with pytest.raises(ValueError, match="The audio of row 3 is no"):
            load_array(raw, where="audio of row 3")
    assert not trap.exists()


def test_an_array_that_promises_more_than_it_holds_takes_no_memory():
    content = BytesIO()
    np.save(content, np.zeros(3, np.float32))
    huge = content.getvalue().replace(b"(3,), }           ", b"(999999999999,), }")
    with pytest.raises(ValueError, match="is no"):
        load_array(huge, where="audio")
    with pytest.raises(ValueError, match="plain array"):
        load_array(content.getvalue()[:-1], where="audio")


def index_with(**changes):
    def change(raw):
        table = pq.read_table(BytesIO(raw))
        for name, value in changes.items():
            column = table[name].to_numpy().copy()
            column[0] = value
            place = table.column_names.index(name)
            table = table.set_column(place, name, pa.array(column))
        buffer = BytesIO()
        pq.write_table(table, buffer)
        return buffer.getvalue()

    return change


@pytest.mark.parametrize(("column", "value"), [("shard", 99), ("shard", -1), ("text.size", -3)])
def test_an_index_that_points_elsewhere_is_refused(strange, column, value):
    root = strange("train.parquet", index_with(**{column: value}))
    with pytest.raises(ValueError, match=r"train\.parquet does not fit dataset\.json"):
        shards(root).setup()


@pytest.mark.parametrize(("column", "value"), [("text.size", 10**13), ("text.start", 10**9)])
def test_an_index_that_points_beyond_its_shard_is_refused_when_read(strange, column, value):
    data = shards(strange("train.parquet", index_with(**{column: value})))
    data.setup()
    with pytest.raises(ValueError, match=r"train-000000\.tar is cut short or does not fit"):
        data.splits["train"][0, 0]


def test_a_shard_that_is_cut_short_or_lost_is_named(strange, tmp_path):
    data = shards(strange("train-000000.tar", lambda raw: raw[:100]))
    data.setup()
    with pytest.raises(ValueError, match=r"train-000000\.tar is cut short"):
        data.splits["train"][0, 0]
    (tmp_path / "strange" / "val-000000.tar").unlink()
    with pytest.raises(ValueError, match=r"val-000000\.tar is not there"):
        data.splits["val"][0, 0]


def test_what_is_no_index_is_refused(strange):
    with pytest.raises(ValueError, match=r"val\.parquet is no index of shards"):
        shards(strange("val.parquet", lambda raw: raw[:50])).setup()


def refused_unless_outside(root):
    with pytest.raises(ValueError, match=r"lies outside data\.root"):
        use(shards(root))
    use(shards(root, outside=True))


def use(data):
    data.setup()
    return data.splits["train"][0, 0]


@pytest.mark.parametrize("name", ["dataset.json", "train.parquet", "train-000000.tar"])
def test_no_link_leads_out_of_the_folder_unless_that_is_allowed(strange, tmp_path, name):
    root = strange(name, lambda raw: raw)
    (tmp_path / "strange" / name).rename(tmp_path / "secret")
    (tmp_path / "strange" / name).symlink_to(tmp_path / "secret")
    refused_unless_outside(root)


@pytest.mark.parametrize("name", ["dataset.json", "train.parquet", "train-000000.tar"])
def test_a_pipe_is_not_waited_for_and_a_device_not_read(strange, tmp_path, name):
    root = strange(name, lambda raw: raw)
    path = tmp_path / "strange" / name
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="is no plain file"):
        use(shards(root))
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="is no plain file"):
        use(shards(root, outside=True))
