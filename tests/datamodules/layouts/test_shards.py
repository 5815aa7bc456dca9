"""Shards: what was packed comes back, once an epoch, from anywhere."""

import json
import tarfile
from io import BytesIO
from itertools import chain

import fsspec
import numpy as np
import pytest
import torch

from datamodules.core.dataset import SPLITS
from datamodules.layouts.shards.writer import pack
from datamodules.readers import READERS
from tests.configs import compose_config
from tests.datamodules.sentences import Sentences, shards


def assert_same_batches(data, expected):
    for split in SPLITS:
        ours = list(getattr(data, f"{split}_dataloader")())
        theirs = list(getattr(expected, f"{split}_dataloader")())
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert a.ids == b.ids
            assert torch.equal(a.targets["target"], b.targets["target"])
            for part in ("inputs", "masks", "present"):
                one, other = getattr(a, part), getattr(b, part)
                assert set(one) == set(other)
                assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_was_packed_comes_back_batch_for_batch(packed):
    data = shards(packed)
    assert_same_batches(data, Sentences())
    assert data.class_names == ["even", "odd"]
    assert len(data.description.shards["train"]) > 2
    assert data.splits["train"].source.columns["audio"].lengths(None).tolist() == [
        1 + n % 9 for n in range(37)
    ]
    text = data.splits["train"].source.columns["text"].lengths(data.readers["text"])
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


def test_numbers_categories_and_dates_are_packed(make_data, table_of_columns, tmp_path):
    def manifest():
        path = str(table_of_columns)
        options = {"modalities": None, "kinds": list(READERS), "batch_size": 5}
        return make_data("manifest", path=path, **options)

    pack(manifest(), str(tmp_path / "out"))
    data, original = make_data("shards", root=str(tmp_path / "out"), batch_size=5), manifest()
    for datamodule in (data, original):
        datamodule.setup()
    assert data.modalities == original.modalities == ["array", "category", "date"]
    assert data.inferred()["category"] == original.inferred()["category"]
    for a, b in zip(data.test_dataloader(), original.test_dataloader(), strict=True):
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
    shard = data.splits["train"].blocks()
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
        ("nowhere", FileNotFoundError, r"no dataset\.json in nowhere: .*pack\.py"),
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


def test_the_packing_command_composes_for_every_data_set_and_lists_its_options():
    for name in ("fsdd", "manifest", "digits"):
        config = compose_config("pack", (f"data={name}", "out=somewhere", "shard_mib=1"))
        assert (config.out, config.shard_mib, config.decoded) == ("somewhere", 1, False)
        assert "_target_" in config.data
