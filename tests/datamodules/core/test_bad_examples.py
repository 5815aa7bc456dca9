"""on_error=skip: whatever cannot be read is named once, listed, and counted against a budget."""

import csv
import logging

import numpy as np
import pytest
import soundfile
from PIL import Image

from datamodules.core.bad_examples import BadExamples
from datamodules.core.columns import Files, Values
from datamodules.core.rows import Rows
from datamodules.core.rows_datamodule import RowsDataModule

COUNT = 60
TRUNCATED, EMPTY, WRONG, LOST = 3, 17, 29, 41


class Films(RowsDataModule):
    """A picture and a sentence an example."""

    available_modalities = ("image", "text")

    def __init__(self, root, *, texts, **common):
        super().__init__(**common)
        self.root, self.texts = root, texts

    def rows(self):
        return Rows(
            {
                "image": Files([f"{n}.png" for n in range(COUNT)], root=self.root),
                "text": Values([f"film {n}" if self.texts else None for n in range(COUNT)]),
            },
            labels=[n % 2 for n in range(COUNT)],
            ids=[f"film {n}" for n in range(COUNT)],
            held_out=("test", "val"),
        )


@pytest.fixture
def make(tmp_path):
    """Sixty pictures of which four are broken, each in its own way."""
    root = tmp_path / "pictures"
    root.mkdir()
    random = np.random.default_rng(0)
    for n in range(COUNT):
        pixels = random.integers(0, 256, (11, 13, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{n}.png")
    raw = (root / f"{TRUNCATED}.png").read_bytes()
    (root / f"{TRUNCATED}.png").write_bytes(raw[: len(raw) // 2])
    (root / f"{EMPTY}.png").write_bytes(b"")
    soundfile.write(root / "sound.wav", np.zeros(100), 8000)
    (root / "sound.wav").rename(root / f"{WRONG}.png")
    (root / f"{LOST}.png").unlink()

    def make(*, texts=True, **options):
        defaults = {"on_error": "skip", "error_budget": 0.1, "cache_gib": 0.0, "batch_size": 7}
        image = {"channels": 3, "size": None, "resize": False}
        kinds = {"image": image, "text": {"max_length": 9}}
        return Films(
            root, texts=texts, modalities=["image", "text"], **(defaults | kinds | options)
        )

    return make


def read_all(data, epochs=1):
    """The batches of all splits."""
    found = []
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        for epoch in range(epochs):
            loader.set_epoch(epoch)
            found += list(loader)
    return found


def listed(data):
    with data.bad_examples.path.open(newline="") as file:
        return [(row["id"], row["modality"], row["file"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("cache_gib", [0.0, 1.0])
def test_every_broken_file_is_listed_once_and_its_example_goes_on(
    make, tmp_path, num_workers, cache_gib
):
    data = make(num_workers=num_workers, cache_gib=cache_gib)
    data.setup()
    data.report_to(tmp_path / "run")
    batches = read_all(data, epochs=2)
    expected = [(f"film {n}", "image", f"{n}.png") for n in sorted((TRUNCATED, EMPTY, WRONG, LOST))]
    rows = sorted((id, kind, file.rpartition("/")[2]) for id, kind, file in listed(data))
    assert rows == sorted(expected)
    assert data.bad_examples.path == tmp_path / "run" / "bad_examples.csv"
    reasons = {row["id"]: row["reason"] for row in data.bad_examples.rows()}
    assert "the file has zero bytes" in reasons[f"film {EMPTY}"]
    assert "There is no file" in reasons[f"film {LOST}"]
    absent = {
        id
        for batch in batches
        for id, here in zip(batch.ids, batch.has_any(["image"]), strict=True)
        if not here
    }
    assert absent == {id for id, _, _ in expected}
    assert all("text" not in batch.present for batch in batches)


def test_each_is_logged_by_name_once(make, caplog):
    data = make()
    with caplog.at_level(logging.WARNING):
        read_all(data, epochs=3)
    for n in (TRUNCATED, EMPTY, WRONG, LOST):
        assert sum(r.getMessage().startswith(f"film {n}:") for r in caplog.records) == 1


def test_raising_names_the_file_and_how_to_go_on(make):
    with pytest.raises(ValueError, match=rf"film {LOST}: There is no file .*data\.on_error=skip"):
        make(on_error="raise").setup()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_more_than_the_budget_stops_with_a_summary(make, num_workers):
    data = make(error_budget=0.05, num_workers=num_workers)
    message = r"4 of 60 examples are broken, more than data\.error_budget=0\.05.*bad_examples\.csv"
    with pytest.raises(ValueError, match=message):
        read_all(data)


def test_training_takes_another_example_where_nothing_is_left_and_evaluation_none(make):
    data = make(texts=False)
    data.setup()
    bad = {f"film {n}" for n in (TRUNCATED, EMPTY, WRONG, LOST)}
    seen = []
    for name, split in data.splits.items():
        for index in range(len(split)):
            example = split[0, index]
            if name == "train":
                assert example.id not in bad
                assert example.inputs["image"] is not None
            else:
                seen.append(example.id)
                assert (example.inputs["image"] is None) == (example.id in bad)
    assert len(seen) == len(set(seen)) == len(data.splits["val"]) + len(data.splits["test"])


def test_batches_keep_their_sizes(make):
    sizes = [len(batch.ids) for batch in read_all(make(texts=False))]
    healthy = [len(batch.ids) for batch in read_all(make(texts=True))]
    assert sizes == healthy


def test_what_was_reported_moves_with_the_list_and_an_old_list_is_replaced(tmp_path):
    path = tmp_path / "run" / "bad_examples.csv"
    path.parent.mkdir()
    path.write_text("id,modality,file,reason\nold,image,,gone\n")
    first, second = BadExamples(budget=1.0, total=3), BadExamples(budget=1.0, total=3)
    first.report("a", "image", file="a.png", reason="torn")
    first.move(path, anew=True)
    second.report("a", "image", file="a.png", reason="torn")
    second.report("b", "audio", file="b.wav", reason='of "quotes", commas\nand lines')
    second.move(path, anew=False)
    first.report("b", "audio", file="b.wav", reason="again")
    assert [(row["id"], row["modality"]) for row in first.rows()] == [
        ("a", "image"),
        ("b", "audio"),
    ]
    assert first.rows()[1]["reason"] == 'of "quotes", commas\nand lines'


@pytest.mark.parametrize("options", [{"on_error": "ignore"}, {"error_budget": 1.5}])
def test_impossible_options_are_refused(make, options):
    with pytest.raises(ValueError, match=r"data\.on_error=.*raise or skip"):
        make(**options)


@pytest.mark.parametrize("cache_gib", [0.0, 1.0], ids=["decoded every time", "kept"])
def test_where_errors_are_raised_the_file_and_the_way_round_it_are_named(make, tmp_path, cache_gib):
    for name in (EMPTY, WRONG, LOST):
        (tmp_path / "pictures" / f"{name}.png").write_bytes(
            (tmp_path / "pictures" / "0.png").read_bytes()
        )
    data = make(on_error="raise", cache_gib=cache_gib)
    with pytest.raises(ValueError, match=rf"/{TRUNCATED}\.png: .*data\.on_error=skip goes on with"):
        read_all(data)
