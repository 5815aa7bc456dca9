"""data=manifest: splits that are given or made, and what is warned of."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.datamodules.tables import label, picture

PROJECT = Path(__file__).parents[3]


@pytest.fixture
def make(make_manifest):
    return make_manifest


def test_a_column_of_splits_is_found_and_its_names_are_forgiving(make, table, rows):
    for n, row in enumerate(rows):
        row["split"] = ["train", "Train", "validation", "TEST", "dev"][n % 5]
    data = make(table(rows))
    assert [len(split) for split in data.splits.values()] == [24, 24, 12]
    ids = {int(name.split(":")[1]) - 1 for name in data.splits["test"].source.ids}
    assert ids == set(range(3, 60, 5))
    rows[7]["split"] = "holdout"
    with pytest.raises(ValueError, match=r"my\.csv:8: data\.split=split says 'holdout', expected"):
        make(table(rows), split="split")


def test_a_split_that_the_column_does_not_give_is_held_out_of_train(make, table, rows):
    for n, row in enumerate(rows):
        row["split"] = "test" if n < 12 else "train"
    data = make(table(rows), val_share=0.25)
    assert [len(split) for split in data.splits.values()] == [36, 12, 12]
    assert [len(set(split.source.targets.tolist())) for split in data.splits.values()] == [3, 3, 3]


def test_each_split_may_have_a_file_of_its_own(make, table, rows):
    paths = {
        split: str(table(rows[start : start + 20], f"{split}.csv"))
        for split, start in (("train", 0), ("val", 20), ("test", 40))
    }
    data = make(paths)
    assert [len(split) for split in data.splits.values()] == [20, 20, 20]
    assert data.splits["test"].source.ids[3] == "test.csv:4"
    del paths["val"]
    assert [len(split) for split in make(paths, val_share=0.15).splits.values()] == [17, 3, 20]


def test_rows_of_a_group_are_never_in_two_splits(make, table, rows):
    for n, row in enumerate(rows):
        row["speaker"] = f"speaker {n // 4}"
    data = make(table(rows), group="speaker")
    groups = {
        name: {(int(id.split(":")[1]) - 1) // 4 for id in split.source.ids}
        for name, split in data.splits.items()
    }
    assert not groups["train"] & groups["val"]
    assert not groups["train"] & groups["test"]
    assert not groups["val"] & groups["test"]
    assert all(len(groups[name]) >= 1 for name in groups)
    assert 6 <= len(data.splits["test"]) <= 18
    alone = make(table(rows))
    assert any("hint: data.group=speaker" in line for line in alone.summary())


def test_rows_without_a_group_are_groups_of_their_own(make, table, rows):
    for n, row in enumerate(rows):
        row["speaker"] = "" if n < 50 else f"speaker {n % 5}"
    data = make(table(rows), group="speaker")
    assert 6 <= len(data.splits["test"]) <= 18
    groups = [
        {int(id.split(":")[1]) % 5 for id in split.source.ids if int(id.split(":")[1]) > 50}
        for split in data.splits.values()
    ]
    assert sum(map(len, groups)) == 5


def test_splits_depend_on_the_split_seed_alone(make, table, rows):
    def ids(**seeds):
        return list(make(table(rows), **seeds).splits["test"].source.ids)

    assert ids() == ids(seed=3)
    assert ids() != ids(split_seed=3)


def test_too_few_rows_to_make_splits_of_are_refused(make, table, rows):
    rows = [row | {"label": n % 2} for n, row in enumerate(rows)]
    with pytest.raises(ValueError, match="4 examples are too few to make a val split"):
        make(table(rows[:4]))
    splits = make(table(rows[:6])).splits
    assert [len(splits[name]) for name in ("train", "val", "test")] == [2, 2, 2]


def test_groups_in_several_given_splits_are_warned_of(make, table, rows):
    for n, row in enumerate(rows):
        row |= {"split": ["train", "val", "test"][n % 3], "speaker": n // 2}
    lines = make(table(rows), group="speaker").summary()
    assert "warning: 30 groups are in several splits, group 0 for one" in lines


@pytest.mark.parametrize("spelled", ["{}", "./{}", "sub/../{}", ".//{}", "{root}/{}"])
def test_leaks_between_splits_are_warned_of(make, table, rows, tmp_path, spelled):
    for n, row in enumerate(rows):
        row["split"] = ["train", "val", "test"][n % 3]
    rows[4]["photo"], rows[5]["remark"] = rows[0]["photo"], rows[3]["remark"]
    rows[4]["photo"] = spelled.format(rows[0]["photo"], root=tmp_path)
    (tmp_path / "sub").mkdir()
    lines = make(table(rows), outside=".." in spelled).summary()
    assert any(
        "1 examples of val have a file as image that train has too" in line for line in lines
    )
    assert any(
        "1 examples of test have a text as text that train has too" in line for line in lines
    )
    assert sum("train has too" in line for line in lines) == 2


def test_leaks_of_files_in_the_table_name_a_row(make, table, rows, tmp_path, monkeypatch):
    for n, row in enumerate(rows):
        row["split"] = ["train", "val", "test"][n % 3]
        row["photo"] = (tmp_path / rows[n]["photo"]).read_bytes()
    rows[4]["photo"] = rows[0]["photo"]
    path = table(rows, "my.parquet")
    (line,) = [line for line in make(path).summary() if "train has too" in line]
    assert line.startswith("warning: 1 examples of val have a file as image that train has too (my")
    assert "(my.parquet:5)" in line
    monkeypatch.setattr(
        "datamodules.core.data_audit._LARGE", sum(len(row["photo"]) for row in rows) - 1
    )
    lines = make(path).summary()
    assert "hint: image is too much to be searched for what splits share" in lines
    assert not any("train has too" in line for line in lines)


def test_small_splits_and_classes_without_training_are_warned_of(make, table, rows):
    for n, row in enumerate(rows):
        row["split"] = "train" if row["label"] != "eel" else ["val", "test"][n // 3 % 2]
    lines = make(table(rows)).summary()
    assert "warning: no example of train is of eel, which cannot be learned" in lines
    assert "warning: val has 10 examples, too few to measure anything" in lines


def test_classes_that_differ_in_case_alone_are_warned_of(make, table, rows):
    lines = make(table(label(rows, ["cat", "Cat ", "dog"] * 20))).summary()
    assert "warning: the classes 'Cat ' and 'cat' differ in case or spaces alone" in lines


MILLION = """
import resource, sys, time
import torchvision.transforms.v2
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tests.configs import data_config

config = OmegaConf.create({"data": data_config("manifest"), "seed": 0})
config.data.modalities = None
config.data.update({"path": sys.argv[1], "kinds": ["image", "text", "array"]})
taken = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
data, before, start = instantiate(config.data), taken(), time.perf_counter()
data.setup()
print(f"{time.perf_counter() - start:.1f} {taken() - before:.2f}", *map(len, data.splits.values()))
"""


@pytest.mark.slow
def test_a_million_rows_are_ready_within_seconds_and_little_memory(tmp_path, capsys):
    """Prints how many."""
    for n in range(1000):
        picture(tmp_path / f"img/{n}.png", n % 256, (32, 32))
    with (tmp_path / "my.csv").open("w") as file:
        file.write("photo,caption,age,label\n")
        for n in range(1_000_000):
            file.write(f'img/{n % 1000}.png,"A sentence, number {n}",{n % 89},c{n % 7}\n')
    command = [sys.executable, "-c", MILLION, str(tmp_path / "my.csv")]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    seconds, gibibytes, *splits = done.stdout.split()
    with capsys.disabled():
        print(f"\na million rows: {seconds} s, {gibibytes} GiB")
    assert sum(map(int, splits)) == 1_000_000
    assert float(seconds) < 60, "on a machine that has other work"
    assert float(gibibytes) < 1
