"""data=manifest: a table of the user's own, and what is inferred from it."""

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException

from datamodules.layouts.manifest import ManifestDataModule
from tests.datamodules.tables import clip, label, picture


@pytest.fixture
def make(make_manifest):
    return make_manifest


def examples(data):
    """id → example, of all splits."""
    return {
        example.id: example
        for split in data.splits.values()
        for example in (split[0, index] for index in range(len(split)))
    }


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_everything_is_inferred_from_a_table_of_any_kind(make, table, rows, suffix):
    data = make(table(rows, f"my.{suffix}"), text={"tokenizer": "bytes"})
    assert data.modalities == ["image", "audio", "text", "array"]
    assert data.class_names == ["cat", "dog", "eel"]
    assert [len(split) for split in data.splits.values()] == [42, 6, 12]
    assert data.readers["image"].size == (20, 28)
    assert (data.readers["audio"].sample_rate, data.readers["audio"].max_seconds) == (8000, 0.1)
    found = examples(data)
    assert set(found) == {f"my.{suffix}:{n + 1}" for n in range(60)}
    for n in range(60):
        example = found[f"my.{suffix}:{n + 1}"]
        assert example.targets["target"] == n % 3
        level = example.inputs["image"][0, 0, 0]
        assert round(level.item()) == 4 * n
        assert round(example.inputs["audio"][0].item() * 256) == 4 * n
        text = bytes((example.inputs["text"] - 6).tolist()).decode()
        assert text == rows[n]["remark"]
        values = example.inputs["array"][:, 0] * torch.tensor(data.readers["array"].std)
        values += torch.tensor(data.readers["array"].mean)
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
        (first, second, third) = (
            examples(data)[f"my.csv:{n}"].targets["target"] for n in (1, 2, 3)
        )
        assert first.tolist() == [1, 0, 1]
        assert second.tolist() == ([0, 0, 0] if values[1] == "[]" else [1, 0, 0])
        assert third.tolist() == ([0, 1, 0] if values[1] == "[]" else [0, 1, 1])
    elif targets == "values":
        assert examples(data)["my.csv:4"].targets["target"].item() == pytest.approx(values[3])


def test_one_class_alone_is_refused(make, table, rows):
    with pytest.raises(ValueError, match="all examples are of the class cat: nothing can be learn"):
        make(table(label(rows, ["cat"] * 60)))


def test_lists_in_json_lines_are_labels(make, table, rows):
    data = make(table(label(rows, [["x"], ["x", "y"], []] * 20), "my.jsonl"))
    assert data.class_names == ["x", "y"]
    assert examples(data)["my.jsonl:2"].targets["target"].tolist() == [1, 1]
    counts = [split.source.targets.sum(0).tolist() for split in data.splits.values()]
    assert f"train 42 examples · x {counts[0][0]}, y {counts[0][1]}" in data.summary()
    assert np.sum(counts, axis=0).tolist() == [40, 20]


def test_several_target_columns_are_values_or_bits(make, table, rows):
    for n, row in enumerate(rows):
        row |= {"x": n / 3, "y": -n, "wet": n % 2, "cold": n % 3 == 0}
    data = make(table(rows), columns={"text": "remark"}, target=["x", "y"])
    assert (data.targets, data.class_names) == ("values", ["x", "y"])
    assert examples(data)["my.csv:4"].targets["target"].tolist() == [1.0, -3.0]
    for row in rows:
        row["cold"] = int(row["cold"])
    data = make(table(rows), columns={"text": "remark"}, target=["wet", "cold"])
    assert (data.targets, data.class_names) == ("labels", ["wet", "cold"])
    assert examples(data)["my.csv:4"].targets["target"].tolist() == [1, 1]


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
    assert examples(data)["my.csv:60"].targets["target"] == 2
    assert any("2 rows have no target and are left out" in line for line in data.summary())
    assert any("the first is my.csv:5" in line for line in data.summary())


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
    data = make(table(rows), text={"tokenizer": "bytes"})
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
    assert data.readers["image"].size == (64, 64)
    assert data.readers["audio"].sample_rate == 16000
    example = examples(data)["my.csv:4"]
    assert example.inputs["image"].shape == (3, 64, 64)
    assert len(example.inputs["audio"]) == 800
    assert any("8,000, 44,100 Hz" in line for line in data.summary())


def test_options_that_are_given_are_not_inferred(make, table, rows):
    options = {"image": {"size": [8, 12], "channels": 1}, "audio": {"sample_rate": 4000}}
    data = make(table(rows), **options, text={"max_length": 5})
    assert (data.readers["image"].size, data.readers["image"].channels) == ((8, 12), 1)
    assert (data.readers["audio"].sample_rate, data.readers["audio"].max_seconds) == (4000, 0.1)
    assert data.readers["text"].max_length == 5


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
    assert again.readers == data.readers, "known before anything is read"
    again.setup()
    first, second = examples(data), examples(again)
    assert first.keys() == second.keys()
    for name, example in first.items():
        assert example.targets["target"] == second[name].targets["target"]
        for modality, value in example.inputs.items():
            assert torch.equal(value, second[name].inputs[modality])


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
    assert found["my.csv:6"].targets["target"] == 2
    assert round(found["my.csv:6"].inputs["audio"][0].item() * 256) == 20


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
