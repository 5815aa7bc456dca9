"""Shards: what was packed comes back, once an epoch, from anywhere, and harms nobody."""

import json
import pickle
import tarfile
from io import BytesIO
from itertools import chain
from types import SimpleNamespace

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from datamodules.columns import Numbers, Tensors, Values
from datamodules.rows import Rows, RowsDataModule
from datamodules.shards.data import ShardsDataModule, load_array
from datamodules.shards.writer import pack
from datamodules.splits import SPLITS

COUNTS = {"train": 37, "val": 5, "test": 7}
TOTAL = sum(COUNTS.values())


class Sentences(RowsDataModule):
    """37 + 5 + 7 rows of a text of its own length, two numbers and a tensor; some lack some."""

    offers = ("text", "array", "audio")

    def __init__(self, **options):
        common = {"modalities": ["text", "array", "audio"], "batch_size": 3, "cache_gib": 0}
        kinds = {
            "text": {"max_length": 40, "pad_multiple": 4},
            "array": {"length": 2, "mean": [1.0, 2.0], "std": [1.0, 3.0]},
            "audio": {"sample_rate": 10, "max_seconds": 1.0},
        }
        super().__init__(**common | kinds | options)

    def rows(self):
        rng = np.random.default_rng(0)
        numbers = rng.normal(size=(TOTAL, 2))
        numbers[::7, 0] = np.nan
        numbers[4] = np.nan
        sounds = [torch.from_numpy(rng.random(1 + n % 9, dtype=np.float32)) for n in range(TOTAL)]
        texts = [None if n % 5 == 3 else f"é text {n} " + "x" * (n % 11) for n in range(TOTAL)]
        return Rows(
            {"text": Values(texts), "array": Numbers(numbers), "audio": Tensors(sounds)},
            labels=["odd" if n % 3 else "even" for n in range(TOTAL)],
            ids=[f"row {n}" for n in range(TOTAL)],
            splits=np.repeat(SPLITS, list(COUNTS.values())),
        )


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A folder of shards of `Sentences`, several a split."""
    out = str(tmp_path_factory.mktemp("shards") / "set")
    pack(Sentences(), out, shard_bytes=9000)
    return out


def shards(root, *, rank=0, world_size=1, **options):
    data = ShardsDataModule(
        root=root, **{"modalities": None, "batch_size": 3, "cache_gib": 0} | options
    )
    data.trainer = SimpleNamespace(
        global_rank=rank,
        world_size=world_size,
        overfit_batches=0,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    return data


def assert_same_batches(data, expected):
    for split in SPLITS:
        ours = list(getattr(data, f"{split}_dataloader")())
        theirs = list(getattr(expected, f"{split}_dataloader")())
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert a.ids == b.ids
            assert torch.equal(a.target, b.target)
            for part in ("inputs", "masks", "present"):
                one, other = getattr(a, part), getattr(b, part)
                assert set(one) == set(other)
                assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_was_packed_comes_back_batch_for_batch(packed):
    data = shards(packed)
    assert_same_batches(data, Sentences())
    assert data.class_names == ["even", "odd"]
    assert len(data.description.shards["train"]) > 2
    assert data.splits["train"].source.lengths("audio", None).tolist() == [
        1 + n % 9 for n in range(37)
    ]
    text = data.splits["train"].source.lengths("text", data.kinds["text"])
    assert text[:4].tolist() == [len("é text 0 ") + 1, len("é text 1 x") + 1, 12, 0]


def test_tensors_can_be_packed_in_place_of_files(tmp_path):
    pack(Sentences(), str(tmp_path), decoded=True)
    assert_same_batches(shards(str(tmp_path)), Sentences())
    with tarfile.open(tmp_path / "train-000000.tar") as tar:
        assert "000000000.text.tensor.npy" in tar.getnames()


def test_some_of_the_modalities_can_be_read(packed):
    some = ["text", "audio"]
    assert_same_batches(shards(packed, modalities=some), Sentences(modalities=some))


def test_some_rows_of_all_splits_are_still_those_rows(packed):
    data = shards(packed, modalities=["text"])
    column = data.rows().columns["text"]
    kept = np.flatnonzero(~column.absent())
    some = column.take(kept)
    assert list(some) == [column[int(index)] for index in kept]
    assert not some.absent().any()
    assert list(column.take(kept[-3:])) == [column[int(index)] for index in kept[-3:]]
    with pytest.raises(ValueError, match="in their order alone"):
        column.take(kept[::-1])


@pytest.mark.parametrize("name", ["fsdd", "image_folder", "text_tsv", "digits"])
def test_any_data_set_can_be_packed(
    name, make_data, tmp_path, spoken_digits, photographs, sentences
):
    roots = {"fsdd": spoken_digits, "image_folder": photographs, "text_tsv": sentences}
    kind = {"fsdd": "audio", "image_folder": "image", "text_tsv": "text"}.get(name)
    options = {"modalities": [kind] if kind else ["image", "audio", "text"]}
    if name in roots:
        options |= {"root": str(roots[name]), "cache_gib": 0}
    pack(make_data(name, **options), str(tmp_path / "out"))
    # The whole yaml: what is null there is as the shards say.
    data = make_data("shards", root=str(tmp_path / "out"))
    data.setup()
    original = make_data(name, **options)
    original.setup()
    assert data.inferred()[kind or "image"] == original.inferred().get(
        kind or "image", data.inferred()[kind or "image"]
    )
    for a, b in zip(data.test_dataloader(), original.test_dataloader(), strict=True):
        assert a.ids == b.ids
        for modality in original.modalities:
            assert torch.equal(a.inputs[modality], b.inputs[modality])


def test_a_tar_holds_what_any_tool_can_read(packed):
    with tarfile.open(f"{packed}/train-000000.tar") as tar:
        names = tar.getnames()
        assert names[:4] == [
            "000000000.text.txt",
            "000000000.array.npy",
            "000000000.audio.tensor.npy",
            "000000000.json",
        ]
        assert tar.extractfile(names[0]).read().decode() == "é text 0 "
        assert json.load(tar.extractfile(names[3])) == {"id": "row 0", "target": 0}
        assert np.isnan(np.load(BytesIO(tar.extractfile(names[1]).read()))[0])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(
    ("options", "workers"),
    [({}, 3), ({"shuffle_window": 8}, 0), ({"bucket_batches": 2}, 0)],
    ids=str,
)
def test_every_example_comes_once_an_epoch_over_ranks_and_workers(packed, options, workers):
    orders = []
    for epoch in (0, 1, 0):
        seen, counts = [], set()
        for rank in range(2):
            loader = shards(
                packed, rank=rank, world_size=2, num_workers=workers, **options
            ).train_dataloader()
            loader.set_epoch(epoch)
            ids = [batch.ids for batch in loader]
            counts.add(len(ids))
            seen.append(list(chain.from_iterable(ids)))
        assert sorted(chain.from_iterable(seen)) == sorted(f"row {n}" for n in range(37))
        assert len(counts) == 1
        orders.append(seen)
    assert orders[0] == orders[2] != orders[1]


def test_a_window_of_the_shuffle_keeps_a_process_to_few_shards(packed):
    data = shards(packed, shuffle_window=6, world_size=2)
    loader = data.train_dataloader()
    shard = data.splits["train"].source.blocks()
    number = {f"row {n}": n for n in range(37)}
    for batch in loader:
        assert len({shard[number[id]] for id in batch.ids}) <= 3
    touched = {shard[number[id]] for batch in loader for id in batch.ids}
    assert len(touched) < len(data.description.shards["train"])
    with pytest.raises(ValueError, match="shuffle_window=-1"):
        shards(packed, shuffle_window=-1)


def test_a_run_resumes_in_the_middle_of_an_epoch(packed):
    first = shards(packed, num_workers=2, shuffle_window=9).train_dataloader()
    batches = iter(first)
    seen = [next(batches).ids for _ in range(5)]
    again = shards(packed, num_workers=2, shuffle_window=9).train_dataloader()
    again.load_state_dict(first.state_dict())
    rest = [batch.ids for batch in again]
    assert sorted(chain.from_iterable(seen + rest)) == sorted(f"row {n}" for n in range(37))
    assert seen + rest == [b.ids for b in shards(packed, shuffle_window=9).train_dataloader()]


@pytest.fixture
def in_memory(packed):
    """The shards under a URL that is no folder."""
    files = fsspec.filesystem("memory")
    files.put(packed, "/bucket/set", recursive=True)
    yield "memory://bucket/set"
    files.rm("/bucket", recursive=True)


def test_a_url_is_read_range_by_range_or_shard_by_shard(in_memory, packed, tmp_path):
    assert_same_batches(shards(in_memory), Sentences())
    assert_same_batches(shards(f"file://{packed}"), Sentences())
    local = tmp_path / "near"
    assert_same_batches(shards(in_memory, local=str(local), num_workers=2), Sentences())
    names = {path.name for path in local.glob("*/*")}
    assert names == {n for split in shards_of(packed).values() for n in split}


def shards_of(packed):
    with open(f"{packed}/dataset.json") as file:
        return json.load(file)["shards"]


def test_shards_used_longest_ago_make_room(in_memory, tmp_path):
    data = shards(in_memory, local=str(tmp_path), local_gib=25_000 / 2**30)
    assert_same_batches(data, Sentences())
    held = list(tmp_path.glob("*/*"))
    assert held
    assert sum(path.stat().st_size for path in held) <= 25_000


def test_packing_to_a_url(tmp_path):
    pack(Sentences(), "memory://made/set", shard_bytes=9000)
    assert_same_batches(shards("memory://made/set"), Sentences())
    with pytest.raises(FileExistsError, match="memory://made/set holds shards already"):
        pack(Sentences(), "memory://made/set")
    fsspec.filesystem("memory").rm("/made", recursive=True)


@pytest.mark.parametrize(
    ("root", "error", "message"),
    [
        ("nowhere", FileNotFoundError, r"no dataset\.json in nowhere: .*datamodules\.pack"),
        ("gopher://x", ValueError, r"data\.root=gopher://x cannot be read"),
        ("", ValueError, "data=shards needs data.root"),
    ],
)
def test_a_root_without_shards_is_named(root, error, message):
    with pytest.raises(error, match=message):
        shards(root).setup()


def test_modalities_and_targets_that_are_not_there_are_refused(packed):
    with pytest.raises(ValueError, match="have text, array, audio, not image"):
        shards(packed, modalities=["image"]).setup()
    with pytest.raises(ValueError, match=r"data\.targets=values, but the targets .* are class"):
        shards(packed, targets="values").setup()


# A stranger's shards


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


def test_the_packing_command_composes_for_every_data_set_and_lists_its_options():
    from pathlib import Path

    from hydra import compose, initialize_config_dir

    conf = Path(__file__).parents[2] / "conf"
    with initialize_config_dir(str(conf), version_base="1.3"):
        for name in ("fsdd", "manifest", "digits"):
            config = compose("pack", [f"data={name}", "out=somewhere", "shard_mib=1"])
            assert (config.out, config.shard_mib, config.decoded) == ("somewhere", 1, False)
            assert "_target_" in config.data
