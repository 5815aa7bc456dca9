"""data=manifest: a table of the user's own, and what is inferred from it."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch
from hydra.errors import InstantiationException
from PIL import Image
from pyarrow import parquet

from datamodules.manifest import ManifestDataModule
from datamodules.readers import KINDS

PROJECT = Path(__file__).parents[2]
WORDS = ["a fine film", "a dull film", "no film at all"]


def picture(path, level, size=(20, 28)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), level, dtype=np.uint8)).save(path)


def clip(path, level, rate=8000, seconds=0.1):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(seconds * rate), level / 256), rate)


@pytest.fixture
def table(tmp_path):
    """table([{…}, …], "my.csv") writes rows as a table of that kind; returns its path."""

    def write(rows, name="my.csv"):
        path = tmp_path / name
        if path.suffix == ".parquet":
            parquet.write_table(pa.Table.from_pylist(rows), path)
        elif path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        else:
            with path.open("w", newline="", encoding="utf-8") as file:
                dialect = "excel-tab" if path.suffix == ".tsv" else "excel"
                writer = csv.DictWriter(file, list(rows[0]), dialect=dialect)
                writer.writeheader()
                writer.writerows(rows)
        return path

    return write


@pytest.fixture
def rows(tmp_path):
    """Sixty rows of picture, clip, sentence, two numbers and a label; the level tells the row."""
    rows = []
    for n in range(60):
        picture(tmp_path / "photos" / f"{n}.png", 4 * n)
        clip(tmp_path / "clips" / f"{n}.wav", 4 * n)
        rows.append(
            {
                "photo": f"photos/{n}.png",
                "clip": f"clips/{n}.wav",
                "remark": f"{WORDS[n % 3]}, number {n}",
                "age": 20 + n % 7,
                "height": 1.5 + n / 100,
                "label": ["cat", "dog", "eel"][n % 3],
            }
        )
    return rows


@pytest.fixture
def make(make_data):
    """make(path, **overrides) → the data module, set up."""

    def make(path, **overrides):
        path = path if isinstance(path, dict) else str(path)
        defaults = {"path": path, "modalities": None, "kinds": list(KINDS)}
        data = make_data("manifest", **(defaults | overrides))
        data.setup()
        return data

    return make


def examples(data):
    """id → example, of all splits."""
    return {
        example.id: example
        for split in data.splits.values()
        for example in (split[0, index] for index in range(len(split)))
    }


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_everything_is_inferred_from_a_table_of_any_kind(make, table, rows, suffix):
    data = make(table(rows, f"my.{suffix}"))
    assert data.modalities == ["image", "audio", "text", "array"]
    assert data.class_names == ["cat", "dog", "eel"]
    assert [len(split) for split in data.splits.values()] == [42, 6, 12]
    assert data.kinds["image"].size == (20, 28)
    assert (data.kinds["audio"].sample_rate, data.kinds["audio"].max_seconds) == (8000, 0.1)
    found = examples(data)
    assert set(found) == {f"my.{suffix}:{n + 1}" for n in range(60)}
    for n in range(60):
        example = found[f"my.{suffix}:{n + 1}"]
        assert example.target == n % 3
        level = example.inputs["image"][0, 0, 0]
        assert round(level.item()) == 4 * n
        assert round(example.inputs["audio"][0].item() * 256) == 4 * n
        text = bytes((example.inputs["text"] - 6).tolist()).decode()
        assert text == rows[n]["remark"]
        values = example.inputs["array"][:, 0] * torch.tensor(data.kinds["array"].std)
        values += torch.tensor(data.kinds["array"].mean)
        torch.testing.assert_close(values, torch.tensor([20.0 + n % 7, 1.5 + n / 100]))


def test_empty_cells_are_absent_modalities(make, table, rows):
    rows[7]["photo"] = rows[8]["clip"] = rows[9]["remark"] = ""
    rows[10]["age"] = ""
    rows[11]["age"] = rows[11]["height"] = "NA"
    data = make(table(rows))
    found = {name.split(":")[1]: example.inputs for name, example in examples(data).items()}
    assert found["8"]["image"] is found["9"]["audio"] is found["10"]["text"] is None
    assert found["12"]["array"] is None
    assert found["11"]["array"][:, 1].tolist() == [1.0, 0.0]
    assert found["11"]["array"][0, 0] == 0
    assert "image from photo, 1 rows lack it" in data.summary()
    assert "array from age (2 empty), height (1 empty), 1 rows lack it" in data.summary()


def test_columns_that_are_named_are_read_and_no_others(make, table, rows):
    data = make(table(rows), columns={"image": "photo"}, target="label")
    assert data.modalities == ["image"]
    assert "ignored clip: not named in data.columns" in data.summary()


def test_two_cameras_are_two_modalities_of_one_kind(make, table, rows):
    for n, row in enumerate(rows):
        row["photo 2"] = f"photos/{(n + 1) % 60}.png"
    data = make(table(rows), columns={"image": ["photo", "photo 2"]}, target="label")
    assert data.modalities == ["image_photo", "image_photo_2"]
    example = examples(data)["my.csv:4"]
    assert [int(example.inputs[name][0, 0, 0]) for name in data.modalities] == [12, 16]


@pytest.mark.parametrize("named", [{"columns": {"image": "foto"}}, {"target": "klass"}])
def test_a_column_that_is_not_there_is_named_with_those_that_are(make, table, rows, named):
    with pytest.raises(ValueError, match=r"no column '(foto|klass)', its columns are photo, clip"):
        make(table(rows), **named)


def label(rows, values, name="label"):
    return [dict(row, **{name: value}) for row, value in zip(rows, values, strict=True)]


@pytest.mark.parametrize(
    ("values", "targets", "classes"),
    [
        (["b", "a"] * 30, "class", ["a", "b"]),
        ([10, 9] * 30, "class", ["9", "10"]),
        ([1.0, 0.0] * 30, "class", ["0", "1"]),
        (["07", "7"] * 30, "class", ["07", "7"]),
        (["sun|sea", "sea", "sky|sun"] * 20, "labels", ["sea", "sky", "sun"]),
        (["sun; sea", "sea", "sky;sun"] * 20, "labels", ["sea", "sky", "sun"]),
        (['["sun", "sea"]', "[]", '["sky"]'] * 20, "labels", ["sea", "sky", "sun"]),
        ([n / 7 for n in range(60)], "values", ["label"]),
        (list(range(1000, 1060)), "values", ["label"]),
    ],
)
def test_the_kind_of_target_is_told_from_its_cells(make, table, rows, values, targets, classes):
    data = make(table(label(rows, values)), columns={"text": "remark"})
    assert data.inferred()["targets"] == targets
    assert data.class_names == classes
    if targets == "labels":
        (first, second, third) = (examples(data)[f"my.csv:{n}"].target for n in (1, 2, 3))
        assert first.tolist() == [1, 0, 1]
        assert second.tolist() == ([0, 0, 0] if values[1] == "[]" else [1, 0, 0])
        assert third.tolist() == ([0, 1, 0] if values[1] == "[]" else [0, 1, 1])
    elif targets == "values":
        assert examples(data)["my.csv:4"].target.item() == pytest.approx(values[3])


def test_one_class_alone_is_refused(make, table, rows):
    with pytest.raises(ValueError, match="all examples are of the class cat: nothing can be learn"):
        make(table(label(rows, ["cat"] * 60)))


def test_lists_in_json_lines_are_labels(make, table, rows):
    data = make(table(label(rows, [["x"], ["x", "y"], []] * 20), "my.jsonl"))
    assert data.class_names == ["x", "y"]
    assert examples(data)["my.jsonl:2"].target.tolist() == [1, 1]
    counts = [split.source.targets.sum(0).tolist() for split in data.splits.values()]
    assert f"train 42 examples · x {counts[0][0]}, y {counts[0][1]}" in data.summary()
    assert np.sum(counts, axis=0).tolist() == [40, 20]


def test_several_target_columns_are_values_or_bits(make, table, rows):
    for n, row in enumerate(rows):
        row |= {"x": n / 3, "y": -n, "wet": n % 2, "cold": n % 3 == 0}
    data = make(table(rows), columns={"text": "remark"}, target=["x", "y"])
    assert (data.targets, data.class_names) == ("values", ["x", "y"])
    assert examples(data)["my.csv:4"].target.tolist() == [1.0, -3.0]
    for row in rows:
        row["cold"] = int(row["cold"])
    data = make(table(rows), columns={"text": "remark"}, target=["wet", "cold"])
    assert (data.targets, data.class_names) == ("labels", ["wet", "cold"])
    assert examples(data)["my.csv:4"].target.tolist() == [1, 1]


def test_a_way_to_read_the_target_may_be_given(make, table, rows):
    path = table(label(rows, [1, 2, 3, 1, 2] * 12))
    data = make(path, columns={"text": "remark"}, targets="values")
    assert data.targets == "values"
    with pytest.raises(InstantiationException, match=r"data\.targets=number, expected one of cl"):
        make(path, targets="number")


def test_rows_without_a_target_are_left_out_and_counted(make, table, rows):
    rows[4]["label"] = rows[9]["label"] = ""
    data = make(table(rows))
    assert sum(len(split) for split in data.splits.values()) == 58
    assert "my.csv:5" not in examples(data)
    assert examples(data)["my.csv:60"].target == 2
    assert any("2 rows have no target and are left out" in line for line in data.summary())
    assert any("the first is my.csv:5" in line for line in data.summary())


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


def test_splits_depend_on_the_split_seed_alone(make, table, rows):
    def ids(**seeds):
        return list(make(table(rows), **seeds).splits["test"].source.ids)

    assert ids() == ids(seed=3)
    assert ids() != ids(split_seed=3)


def test_ids_come_from_their_column(make, table, rows):
    for n, row in enumerate(rows):
        row["id"] = f"film {n // 2}"
    data = make(table(rows))
    assert "film 0" in examples(data)
    assert any(
        line == "warning: 30 ids name several rows, film 0 names 2" for line in data.summary()
    )


def test_texts_may_lie_in_files(make, table, rows, tmp_path):
    for n, row in enumerate(rows):
        (tmp_path / f"{n}.txt").write_bytes(f"\ufeffit says {n}".encode())
        row["remark"] = f"{n}.txt"
    data = make(table(rows))
    ids = examples(data)["my.csv:8"].inputs["text"] - 6
    assert bytes(ids.tolist()).decode() == "it says 7"
    (tmp_path / "9.txt").write_bytes(b"b\xe4d")
    with pytest.raises(ValueError, match=r"9\.txt is not UTF-8 \(byte 0xe4"):
        examples(make(table(rows)))


def test_content_of_files_may_lie_in_the_table(make, table, rows, tmp_path):
    for row in rows:
        photo, sound = tmp_path / row["photo"], tmp_path / row["clip"]
        row["photo"] = {"bytes": photo.read_bytes(), "path": None}
        row["clip"] = sound.read_bytes()
    rows[5]["clip"] = rows[5]["clip"][:-9]
    data = make(table(rows, "my.parquet"), cache_gib=0.0)
    assert data.modalities == ["image", "audio", "text", "array"]
    example = examples_but(data, "my.parquet:6")["my.parquet:8"]
    assert int(example.inputs["image"][0, 0, 0]) == 28
    with pytest.raises(ValueError, match=r"audio of example my\.parquet:6: it is cut short"):
        examples(data)


def examples_but(data, missing):
    found = {}
    for split in data.splits.values():
        for index, id in enumerate(split.source.ids):
            if id != missing:
                found[id] = split[0, index]
    return found


def test_pictures_and_clips_of_many_kinds_come_to_one_size_and_rate(make, table, rows, tmp_path):
    picture(tmp_path / "photos" / "3.png", 12, size=(300, 400))
    clip(tmp_path / "clips" / "3.wav", 12, rate=44100, seconds=0.05)
    data = make(table(rows))
    assert data.kinds["image"].size == (64, 64)
    assert data.kinds["audio"].sample_rate == 16000
    example = examples(data)["my.csv:4"]
    assert example.inputs["image"].shape == (3, 64, 64)
    assert len(example.inputs["audio"]) == 800
    assert any("8,000, 44,100 Hz" in line for line in data.summary())


def test_options_that_are_given_are_not_inferred(make, table, rows):
    options = {"image": {"size": [8, 12], "channels": 1}, "audio": {"sample_rate": 4000}}
    data = make(table(rows), **options, text={"max_length": 5})
    assert (data.kinds["image"].size, data.kinds["image"].channels) == ((8, 12), 1)
    assert (data.kinds["audio"].sample_rate, data.kinds["audio"].max_seconds) == (4000, 0.1)
    assert data.kinds["text"].max_length == 5


def test_too_few_rows_to_make_splits_of_are_refused(make, table, rows):
    rows = [row | {"label": n % 2} for n, row in enumerate(rows)]
    with pytest.raises(ValueError, match="4 examples are too few to make a val split"):
        make(table(rows[:4]))
    splits = make(table(rows[:6])).splits
    assert [len(splits[name]) for name in ("train", "val", "test")] == [2, 2, 2]


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
    monkeypatch.setattr("datamodules.suspicions._LARGE", sum(len(row["photo"]) for row in rows) - 1)
    lines = make(path).summary()
    assert "hint: image is too much to be searched for what splits share" in lines
    assert not any("train has too" in line for line in lines)


def test_small_splits_and_classes_without_training_are_warned_of(make, table, rows):
    for n, row in enumerate(rows):
        row["split"] = "train" if row["label"] != "eel" else ["val", "test"][n // 3 % 2]
    lines = make(table(rows)).summary()
    assert "warning: no example of train is of eel, which cannot be learned" in lines
    assert "warning: val has 10 examples, too few to measure anything" in lines


MILLION = """
import resource, sys, time
import torchvision.transforms.v2
from hydra.utils import instantiate
from omegaconf import OmegaConf

config = OmegaConf.create({"data": OmegaConf.load("conf/data/manifest.yaml"), "seed": 0})
del config.data["defaults"]
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


def test_a_column_of_different_names_is_no_target(make, table, rows):
    with pytest.raises(ValueError, match=r"data\.target=remark has 60 different values in 60 rows"):
        make(table(rows), target="remark", columns={"image": "photo"})


def test_a_table_without_a_target_says_how_to_name_it(make, table, rows):
    for row in rows:
        del row["label"], row["age"]
    with pytest.raises(ValueError, match=r"no column looks like the target: name it with data\.ta"):
        make(table(rows))


def test_a_path_out_of_the_folder_is_refused_with_its_row(make, table, rows, tmp_path):
    rows[6]["photo"] = "../photos/1.png"
    with pytest.raises(ValueError, match=r"my\.csv:7: The path '\.\./photos/1\.png' climbs"):
        make(table(rows))


def test_where_no_file_is_there_the_root_is_asked_for(make, table, rows, tmp_path):
    path = table(rows)
    (tmp_path / "photos").rename(tmp_path / "pictures")
    with pytest.raises(ValueError, match=r"\(59 more rows like it\) None of the files.*data\.root"):
        make(path)
    (tmp_path / "pictures" / "7.png").rename(tmp_path / "photos.png")
    rows[7]["photo"] = "photos.png"
    with pytest.raises(ValueError, match=r"\(58 more rows like it\) data\.on_error=skip goes on"):
        make(table(rows))


def test_no_path_is_asked_for(make_data):
    with pytest.raises(InstantiationException, match=r"data=manifest needs data\.path=FILE"):
        make_data("manifest", kinds=[])


def test_what_was_inferred_rebuilds_the_same_data(make, table, rows):
    for n, row in enumerate(rows):
        row["other"] = f"photos/{59 - n}.png"
    data = make(table(rows))
    again = ManifestDataModule(**data.inferred())
    assert again.modalities == ["image_photo", "image_other", "audio", "text", "array"]
    assert again.kinds == data.kinds, "known before anything is read"
    again.setup()
    first, second = examples(data), examples(again)
    assert first.keys() == second.keys()
    for name, example in first.items():
        assert example.target == second[name].target
        for modality, value in example.inputs.items():
            assert torch.equal(value, second[name].inputs[modality])


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


def test_numbers_that_are_not_numbers_are_no_target(make, table, rows):
    values = [n / 7 for n in range(60)]
    values[4] = float("nan")
    data = make(table(label(rows, values), "my.parquet"), columns={"text": "remark"})
    assert sum(len(split) for split in data.splits.values()) == 59


def test_nested_columns_are_ignored_and_no_target(make, table, rows):
    for row in rows:
        row["extra"] = {"a long": "story of many words"}
    data = make(table(rows, "my.jsonl"))
    assert "ignored extra: nested values" in data.summary()
    with pytest.raises(ValueError, match="cannot be read as names or texts"):
        make(table(rows, "my.jsonl"), target="extra")


def test_classes_that_differ_in_case_alone_are_warned_of(make, table, rows):
    lines = make(table(label(rows, ["cat", "Cat ", "dog"] * 20))).summary()
    assert "warning: the classes 'Cat ' and 'cat' differ in case or spaces alone" in lines


@pytest.mark.parametrize(("count", "batch_size"), [(60, 4), (5, 4), (3000, 64), (400, 16)])
def test_a_small_table_gets_small_batches(make, table, count, batch_size):
    rows = [{"text": f"film number {n}", "label": "ab"[n % 2]} for n in range(max(count, 20))]
    data = make(table(rows))
    assert data.batch_size == batch_size
    assert make(table(rows), batch_size=7).batch_size == 7


def test_rows_without_any_input_are_left_out_and_counted(make, table, rows):
    for name in ("photo", "clip", "remark", "age", "height"):
        rows[4][name] = ""
    data = make(table(rows))
    assert sum(len(split) for split in data.splits.values()) == 59
    assert any("1 rows have no input at all and are left out" in line for line in data.summary())
    found = examples(data)
    assert "my.csv:5" not in found
    assert found["my.csv:6"].target == 2
    assert round(found["my.csv:6"].inputs["audio"][0].item() * 256) == 20


def test_groups_in_several_given_splits_are_warned_of(make, table, rows):
    for n, row in enumerate(rows):
        row |= {"split": ["train", "val", "test"][n % 3], "speaker": n // 2}
    lines = make(table(rows), group="speaker").summary()
    assert "warning: 30 groups are in several splits, group 0 for one" in lines


def test_a_checkpoints_options_read_a_test_file_alone(make, table, rows):
    options = make(table(rows)).inferred()
    path = table(rows[:7], "new.csv")
    data = ManifestDataModule(**(options | {"path": {"test": str(path)}}))
    data.setup()
    assert list(data.splits) == ["test"]
    assert [len(batch.ids) for batch in data.test_dataloader()] == [4, 3]
    assert data.class_names == ["cat", "dog", "eel"]
    with pytest.raises(ValueError, match="The data have no train split, only test"):
        data.train_dataloader()


def test_several_names_make_no_single_class(make, table, rows):
    for n, row in enumerate(rows):
        row["other"] = "xy"[n % 2]
    with pytest.raises(ValueError, match="several target columns must be numbers"):
        make(table(rows), target=["label", "other"])
    with pytest.raises(ValueError, match="the column label, other is not of numbers"):
        make(table(rows), target=["label", "other"], targets="labels")
    with pytest.raises(ValueError, match=r"data.target names label, other, which make no single"):
        make(table(rows), target=["label", "other"], targets="class")
