"""Cached columns: what is kept decoded is what would be decoded each time."""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from datamodules.core import cached_columns
from datamodules.core.bad_examples import BadExamples
from datamodules.core.cached_columns import cache_in_memory, cache_on_disk, decoded_bytes
from datamodules.core.columns import Files, Numbers, Values
from datamodules.core.dataset import Source
from datamodules.readers import READERS
from datamodules.readers.image import ImageReader


@pytest.fixture(autouse=True)
def _few_at_a_time(monkeypatch):
    monkeypatch.setattr(cached_columns, "_EXAMPLES", 3)
    monkeypatch.setattr(cached_columns, "_AHEAD", 2)


@pytest.fixture
def source(tmp_path):
    """Eleven rows of pictures and clips of sizes and lengths of their own; some cells are empty."""
    random = np.random.default_rng(0)
    for n in range(11):
        pixels = random.integers(0, 256, (5 + n, 17 - n, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{n}.png")
        soundfile.write(tmp_path / f"{n}.wav", random.uniform(-0.5, 0.5, 101 + n), 8000)
    columns = {
        "image": Files([None if n == 3 else f"{n}.png" for n in range(11)], root=tmp_path),
        "audio": Files([None if n == 7 else f"{n}.wav" for n in range(11)], root=tmp_path),
        "text": Values([f"film {n}" for n in range(11)]),
        "array": Numbers(random.normal(size=(11, 2))),
    }
    ids = [str(n) for n in range(11)]
    return Source(targets=[n % 2 for n in range(11)], ids=ids, columns=columns)


def cells(source, indices):
    return {name: column.cells(indices) for name, column in source.columns.items()}


@pytest.mark.parametrize("resize", [True, "fit"])
def test_cells_are_as_they_would_be_decoded_and_what_is_cheap_stays(source, resize):
    readers = {
        "image": READERS["image"](channels=3, size=[13, 11], resize=resize),
        "audio": READERS["audio"](sample_rate=8000, max_seconds=1.0),
        "text": READERS["text"](max_length=9),
        "array": READERS["array"](length=2, mean=[0.0] * 2, std=[1.0] * 2),
    }
    cached = cache_in_memory(source, readers=readers)
    cells(cached, [8, 3, 5])
    plain, new, kept = (cells(each, range(11)) for each in (source, cached, cached))
    assert kept["text"] == plain["text"]
    for found, expected in zip(kept["array"], plain["array"], strict=True):
        assert np.array_equal(found, expected)
    for name in ("image", "audio"):
        for first, found, expected in zip(new[name], kept[name], plain[name], strict=True):
            if expected is None:
                assert first is None
                assert found is None
            else:
                decoded = readers[name].decode(expected, where="")
                assert found.dtype == decoded.dtype
                assert torch.equal(found, decoded)
                assert torch.equal(first, decoded)
    assert cached.columns["image"].absent().tolist() == [n == 3 for n in range(11)]
    assert cached.columns["audio"].lengths(readers["audio"]).tolist() == [
        0 if n == 7 else 101 + n for n in range(11)
    ]


def test_size_in_memory_is_bytes_for_pixels_and_floats_for_samples(source):
    image = READERS["image"](channels=3, size=[13, 11])
    audio = READERS["audio"](sample_rate=8000, max_seconds=0.5)
    assert decoded_bytes([source], {"image": image}) == 11 * 3 * 13 * 11
    assert decoded_bytes([source, source], {"audio": audio}) == 22 * 4000 * 4
    assert decoded_bytes([source], {"text": READERS["text"](max_length=9)}) == 0


class Counting(ImageReader):
    """Counts what it decodes."""

    seen: list = []  # noqa: RUF012

    def decode(self, cell, *, where):
        self.seen.append(where)
        return super().decode(cell, where=where)


@pytest.fixture
def pictures(tmp_path):
    """A function that makes the source of five pictures, one of them absent."""
    names = []
    for number in range(5):
        pixels = np.full((3, 2 + number, 3), 40 * number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        names.append(f"{number}.png" if number != 2 else None)

    def make():
        files = Files(names, root=tmp_path)
        ids = [f"row {n}" for n in range(5)]
        return Source(targets=[0] * 5, ids=ids, columns={"image": files})

    return make


def test_in_memory_each_is_decoded_when_it_is_first_asked_for(pictures):
    Counting.seen.clear()
    source = cache_in_memory(
        pictures(), readers={"image": Counting(channels=3, size=(3, 5), resize=True)}
    )
    assert not Counting.seen
    for indices in ([4, 1], [1, 2, 3], [2, 4, 3], range(5)):
        source.columns["image"].cells(indices)
    assert Counting.seen == [f"example row {n}" for n in (4, 1, 3, 0)]


class SaysNothing(Counting):
    """Finds nothing in any cell, as in the sound of a silent film."""

    def decode(self, cell, *, where):
        super().decode(cell, where=where)


def test_cells_that_turn_out_to_hold_nothing_are_not_looked_into_again(pictures):
    Counting.seen.clear()
    source = cache_in_memory(
        pictures(), readers={"image": SaysNothing(channels=3, size=(3, 5), resize=True)}
    )
    for _ in range(2):
        assert source.columns["image"].cells([0, 3]) == [None, None]
    assert len(Counting.seen) == 2


class Larger(Counting):
    """Gives more than it said that it would."""

    def decode(self, cell, *, where):
        return super().decode(cell, where=where).repeat(1, 1, 2)


def test_what_there_is_no_room_for_is_decoded_each_time(pictures):
    Counting.seen.clear()
    source = cache_in_memory(
        pictures(), readers={"image": Larger(channels=3, size=(3, 5), resize=True)}
    )
    shapes = [source.columns["image"].cells([1, 2])[0].shape for _ in range(2)]
    assert shapes == [(3, 3, 10)] * 2
    assert len(Counting.seen) == 2


def test_more_than_there_is_memory_for_is_refused(pictures):
    readers = {"image": ImageReader(channels=3, size=(2**26, 2**26), resize=True)}
    with pytest.raises(ValueError, match=r"no memory for 6\.\d+e\+07 GiB .*data\.cache_gib"):
        cache_in_memory(pictures(), readers=readers)


@pytest.mark.parametrize("option", ["augment", "transform"])
def test_a_step_that_changes_what_it_is_given_leaves_what_is_kept(make_data, photographs, option):
    steps = {option: {"image": [lambda pixels: pixels.div_(2, rounding_mode="floor")]}}
    options = {"root": str(photographs), "image": {"size": [32, 32]}}
    data = make_data("image_folder", modalities=["image"], **options)
    data.set_transforms(**steps)
    first, second, third = (by_name(data.train_dataloader()) for _ in range(3))
    assert all(torch.equal(pixels, second[id]) for id, pixels in first.items())
    assert all(torch.equal(pixels, third[id]) for id, pixels in first.items())


@pytest.mark.parametrize(
    "context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)], ids=str
)
def test_workers_share_what_any_of_them_decoded(make_data, photographs, tmp_path, context):
    root = tmp_path / "pictures"
    shutil.copytree(photographs, root)
    options = {"root": str(root), "modalities": ["image"], "batch_size": 3}
    options["image"] = {"size": [32, 32]}
    plain = list(make_data("image_folder", **options, cache_gib=0.0).train_dataloader())
    loader = make_data("image_folder", **options, num_workers=2).train_dataloader()
    loader.multiprocessing_context = context
    pixels = by_name(plain)
    for epoch in range(2):
        loader.set_epoch(epoch)
        found = by_name(loader)
        assert found.keys() == pixels.keys()
        assert all(torch.equal(found[id], pixels[id]) for id in pixels)
        shutil.rmtree(root, ignore_errors=True)


def by_name(batches):
    """The picture of each id."""
    return {
        id: pixels.clone()
        for batch in batches
        for id, pixels in zip(batch.ids, batch.inputs["image"], strict=True)
    }


@pytest.mark.parametrize("resize", [True, "fit"])
def test_a_folder_keeps_tensors_for_the_next_run(pictures, tmp_path, capsys, resize):
    Counting.seen.clear()
    readers = {"image": Counting(channels=3, size=(3, 5), resize=resize)}
    first = cache_on_disk(pictures(), readers=readers, folder=tmp_path / "kept")
    assert len(Counting.seen) == 4
    assert f"Decoding 5 examples to {tmp_path / 'kept'} …" in capsys.readouterr().out
    second = cache_on_disk(pictures(), readers=readers, folder=tmp_path / "kept")
    assert len(Counting.seen) == 4, "nothing is decoded again"
    assert not capsys.readouterr().out
    for index in range(5):
        cell = pictures().columns["image"].cells([index])[0]
        for source in (first, second, cache_in_memory(pictures(), readers=readers)):
            found = source.columns["image"].cells([index])[0]
            if cell is None:
                assert found is None
            else:
                assert torch.equal(found, readers["image"].decode(cell, where=""))
    assert second.columns["image"].absent().tolist() == [False, False, True, False, False]
    lengths = second.columns["image"].lengths(readers["image"])
    assert (lengths is None) == (resize is True)
    # 3 × 2 pixels, 3 × 3, none, 3 × 5, and 3 × 6 that is scaled to fit.
    assert resize is True or (lengths // 3).tolist() == [6, 9, 0, 15, 10]


def test_other_files_or_options_are_decoded_anew(pictures, tmp_path):
    folder = tmp_path / "kept"
    kind = ImageReader(channels=3, size=(3, 5), resize=True)
    cache_on_disk(pictures(), readers={"image": kind}, folder=folder)
    assert len(list(folder.glob("*/"))) == 1
    cache_on_disk(pictures(), readers={"image": replace(kind, channels=1)}, folder=folder)
    Image.fromarray(np.full((3, 5, 3), 7, np.uint8)).save(tmp_path / "1.png")
    changed = cache_on_disk(pictures(), readers={"image": kind}, folder=folder)
    assert (changed.columns["image"].cells([1])[0] == 7).all()
    assert sum(path.is_dir() for path in folder.iterdir()) == 3


def test_broken_files_are_reported_by_every_run_that_finds_the_folder(pictures, tmp_path):
    (tmp_path / "3.png").write_bytes(b"no picture")
    readers = {"image": ImageReader(channels=3, size=(3, 5), resize=True)}
    for _ in range(2):
        broken = BadExamples(budget=0.5, total=5)
        source = cache_on_disk(
            pictures(), readers=readers, bad_examples=broken, folder=tmp_path / "kept"
        )
        assert [row["id"] for row in broken.rows()] == ["row 3"]
        assert source.columns["image"].absent().tolist() == [False, False, True, True, False]
    with pytest.raises(ValueError, match=r"Cannot read the image .*3\.png"):
        cache_on_disk(pictures(), readers=readers, folder=tmp_path / "kept")


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: None,
        lambda raw: b"",
        lambda raw: b"{}",
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[len(raw) // 2 :],
    ],
)
def test_a_damaged_file_is_named_with_what_to_do(pictures, tmp_path, damage):
    readers = {"image": ImageReader(channels=3, size=(3, 5), resize=True)}
    cache_on_disk(pictures(), readers=readers, folder=tmp_path / "kept")
    [path] = (tmp_path / "kept").glob("*/image.arrow")
    content = damage(path.read_bytes())
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path.parent} are damaged .* delete that"):
        cache_on_disk(pictures(), readers=readers, folder=tmp_path / "kept")


def test_a_fill_that_fails_leaves_nothing_behind(pictures, tmp_path):
    (tmp_path / "3.png").write_bytes(b"no picture")
    readers = {"image": ImageReader(channels=3, size=(3, 5), resize=True)}
    with pytest.raises(ValueError, match=r"3\.png"):
        cache_on_disk(pictures(), readers=readers, folder=tmp_path / "kept")
    assert not [path for path in (tmp_path / "kept").iterdir() if path.is_dir()]


def test_a_fill_that_was_killed_is_made_again_and_leaves_nothing(pictures, tmp_path, monkeypatch):
    readers, kept = {"image": ImageReader(channels=3, size=(3, 5), resize=True)}, tmp_path / "kept"
    child = os.fork()
    if not child:
        monkeypatch.setattr(Path, "rename", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        try:
            cache_on_disk(pictures(), readers=readers, folder=kept)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    [left] = kept.glob("*/")
    source = cache_on_disk(pictures(), readers=readers, folder=kept)
    assert source.columns["image"][0].shape == (3, 3, 5)
    assert len(list(kept.glob("*/"))) == 1
    assert not left.exists()


def test_what_memory_does_not_hold_goes_to_the_folder(make_data, photographs, tmp_path):
    options = {"root": str(photographs), "modalities": ["image"], "image": {"size": [32, 32]}}
    plain = make_data("image_folder", **options)
    kept = make_data(
        "image_folder", **options, cache_gib=1e-9, cache_dir=str(tmp_path / "kept"), num_workers=1
    )
    for one, other in zip(plain.train_dataloader(), kept.train_dataloader(), strict=True):
        assert torch.equal(one.inputs["image"], other.inputs["image"])
    assert any("kept" in line and "GiB" in line for line in kept.summary())
    assert any((tmp_path / "kept").glob("*/image.arrow"))
