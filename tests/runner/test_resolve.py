"""A run from a table alone: its facts resolve the config, which is enough to rebuild from."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from sklearn.utils.class_weight import compute_class_weight

from datamodules.core.facts import DataFacts
from runner.build import build_data
from runner.checks import check_config, check_final
from runner.evaluation import run_evaluation
from runner.prediction import run_prediction
from runner.resolve import plain_config, resolve
from runner.training import run_training

SHORT = ["trainer.max_epochs=1", "logger=none", "data.batch_size=20"]
SHORT += ["task.val_subsets=none", "task.test_subsets=none"]


@pytest.fixture
def run(compose_run, tmp_path):
    """run("data.path=…", …) → the saved config and the results of a short run."""

    def run(*overrides):
        run_training(compose_run("data=manifest", *SHORT, *overrides))
        folder = tmp_path / "run"
        results = json.loads((folder / "results.json").read_text())
        return OmegaConf.load(folder / "config.yaml"), results

    return run


@pytest.fixture
def rewrite(table_of_films):
    """rewrite(column, values) replaces a column of the table, or adds it."""

    def rewrite(column, values):
        with table_of_films.open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row, value in zip(rows, values, strict=True):
            row[column] = value
        with table_of_films.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return table_of_films

    return rewrite


def test_a_path_is_all_it_takes_to_train_and_to_evaluate_and_predicting_needs_none(
    run, compose_run, table_of_films, tmp_path
):
    config, results = run(f"data.path={table_of_films}", "task.test_subsets=all")
    assert list(config.data.modalities) == ["image", "audio", "text", "array"]
    assert set(config.model.adapters) == {"image", "audio", "text", "array"}
    assert config.task._target_ == "perceiver.tasks.SupervisedTask"
    assert "test/acc/image+array" in results
    assert list(config.data.image.size) == [12, 16]
    assert config.data.array.length == 2
    checkpoint = f"ckpt_path={tmp_path}/run/checkpoints/best.ckpt"
    same = [checkpoint, f"data.path={table_of_films}", f"paths.run_dir={tmp_path}/again"]
    run_evaluation(compose_run(*same, name="evaluate"))
    again = json.loads((tmp_path / "again" / "results.json").read_text())
    names = [name for name in results if name.startswith("test/")]
    assert {name: again[name] for name in names} == {name: results[name] for name in names}
    folder = table_of_films.parent
    given = [f"image={folder}/stills/7.png", "text=a film", "array=[1953,null]"]
    answer = run_prediction(compose_run(checkpoint, *given, name="predict"))
    assert answer.shape == (1, 3)
    assert answer.sum() == pytest.approx(1.0, abs=1e-5)


def test_numbers_categories_and_dates_of_any_name_are_trained_on_evaluated_and_predicted(
    run, compose_run, table_of_columns, tmp_path
):
    config, results = run(f"data.path={table_of_columns}")
    assert list(config.data.modalities) == ["array", "category", "date"]
    assert dict(config.data.columns) | {"array": ["price", "age"]} == dict(config.data.columns)
    assert config.data.columns.category == ["colour", "member"]
    assert config.data.columns.date == ["joined"]
    assert "test/acc/array+category" in results
    checkpoint = f"ckpt_path={tmp_path}/run/checkpoints/best.ckpt"
    same = [checkpoint, f"data.path={table_of_columns}", f"paths.run_dir={tmp_path}/again"]
    run_evaluation(compose_run(*same, name="evaluate"))
    again = json.loads((tmp_path / "again" / "results.json").read_text())
    assert again["test/loss"] == results["test/loss"]
    values = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)["run_config"]
    assert values["data"]["category"]["values"][0] == ["${oc.env:HOME}", "???", "red", "~/.ssh"]
    answers = [
        run_prediction(compose_run(checkpoint, *given, name="predict"))
        for given in (
            ["array=[1017,3]", "category=[red,null]", "date=[2024-02-29]"],
            ["array=[1017,3]", "category=['~/.ssh',null]", "date=[2024-02-29]"],
            ["array=[1017,3]", "category=[mauve,yes]"],
        )
    ]
    assert all(answer.sum() == pytest.approx(1.0, abs=1e-5) for answer in answers)
    assert not torch.equal(answers[0], answers[1])


def test_adapters_that_were_chosen_limit_what_is_read(run, table_of_films):
    adapters = "modality@model.adapters=[image_pixels,text]"
    config, _ = run(f"data.path={table_of_films}", adapters)
    assert list(config.data.modalities) == ["image", "text"]
    assert config.model.adapters.image._target_.endswith("PixelAdapter")


def test_two_cameras_get_an_adapter_each(run, rewrite, compose_run, tmp_path):
    path = rewrite("right", [f"stills/{59 - n}.png" for n in range(60)])
    columns = ["data.columns.image=[still,right]", "data.target=label"]
    wide = ["model.adapters.image.embed_dim=24", "task.test_subsets=single"]
    config, results = run(f"data.path={path}", *columns, *wide)
    assert set(config.model.adapters) == {"image_still", "image_right"}
    assert [a.embed_dim for a in config.model.adapters.values()] == [24, 24]
    assert "test/acc/image_right" in results
    weights = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    left, right = (
        weights["state_dict"][f"model.adapters.image_{name}.embed.weight"]
        for name in ("still", "right")
    )
    assert not torch.equal(left, right)
    given = [f"ckpt_path={tmp_path}/run/checkpoints/best.ckpt", "top=2"]
    camera = f"+image_right={path.parent}/stills/3.png"
    assert run_prediction(compose_run(*given, camera, name="predict")).shape == (1, 3)
    with pytest.raises(ValueError, match=r"give some of \+image_still=… \+image_right=…"):
        run_prediction(compose_run(*given, name="predict"))


def test_real_values_are_trained_on_and_reported_in_their_own_unit(
    run, rewrite, compose_run, tmp_path, capsys
):
    path = rewrite("label", [50_000 + 1000.5 * (n % 13) for n in range(60)])
    config, results = run(f"data.path={path}", "data.columns.text=review")
    objective = config.task.objective
    assert objective._target_ == "perceiver.tasks.Regression"
    assert 50_000 < objective.mean[0] < 62_000
    assert results["val/loss"] < 10, "standardised"
    assert 1000 < results["test/mae"] < 30_000, "not standardised"
    checkpoint = f"ckpt_path={tmp_path}/run/checkpoints/best.ckpt"
    answer = run_prediction(compose_run(checkpoint, "text=a film", name="predict"))
    assert 40_000 < answer.item() < 70_000
    assert "label" in capsys.readouterr().out


def test_labels_are_trained_on_together(run, rewrite):
    path = rewrite("label", ["sun|sea", "sea", "sky|sun"] * 20)
    config, results = run(f"data.path={path}", "data.columns.text=review")
    assert config.task.objective._target_ == "perceiver.tasks.MultiLabel"
    assert config.task.val_subsets == "none"
    assert config.task.objective.out_dim == 3
    assert 0 <= results["test/map"] <= 1


def test_a_task_that_was_chosen_says_how_to_read_the_target(run, rewrite):
    path = rewrite("label", [n % 3 for n in range(60)])
    config, _ = run(f"data.path={path}", "data.columns.text=review", "task=regression")
    assert config.data.targets == "values"
    assert config.task.objective.out_dim == 1


def test_a_way_to_read_the_target_chooses_the_task(compose_run, rewrite):
    path = rewrite("label", [n % 3 for n in range(60)])
    given = [f"data.path={path}", "data.columns.text=review", "data.targets=values"]
    config = compose_run("data=manifest", *given)
    check_config(config)
    datamodule, config = build_data(config)
    assert config.task.objective._target_ == "perceiver.tasks.Regression"
    assert any(line.endswith(" examples · label 0 to 2") for line in datamodule.summary())
    with pytest.raises(ValueError, match=r"trains on labels of an example.*choose task=regression"):
        check_config(compose_run("data=manifest", *given, "task=multi_label"))


def test_transforms_may_refer_to_what_is_inferred(compose_run, table_of_films):
    given = ["data=manifest", f"data.path={table_of_films}", "data.columns.image=still"]
    crop = "{_target_:datamodules.transforms.image.CentreCrop,size:'${data.image.size}'}"
    changes = ["augment/image=flip_crop", "augment/mix=mixup", f"data.transform.image=[{crop}]"]
    config = compose_run(*given, "data.target=label", *changes)
    data, final = build_data(config)
    assert list(final.data.augment.image[1].size) == [12, 16]
    batch = next(iter(data.train_dataloader()))
    assert batch.targets["target"].shape == (4, 3), "mixed"
    assert list(data.splits["train"].augment["image"][1].size) == [12, 16]
    assert list(data.splits["test"].transform["image"][0].size) == [12, 16]
    config.data.augment.image = []
    plain = build_data(config)[0].splits["train"]
    pairs = [(plain[0, n], data.splits["train"][0, n]) for n in range(9)]
    assert any(not torch.equal(a.inputs["image"], b.inputs["image"]) for a, b in pairs)


def test_broken_files_are_listed_in_the_run_folder_and_counted(run, table_of_films, tmp_path):
    (table_of_films.parent / "stills" / "3.png").write_bytes(b"")
    (table_of_films.parent / "clips" / "5.wav").unlink()
    _, results = run(f"data.path={table_of_films}", "data.on_error=skip", "data.cache_gib=0")
    with (tmp_path / "run" / "bad_examples.csv").open(newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"films.csv:4", "films.csv:6"}
    assert rows["films.csv:4"]["file"].endswith("stills/3.png")
    assert rows["films.csv:6"]["modality"] == "audio"
    assert results["broken_examples"] == 2


FACTS = DataFacts(
    targets="values",
    class_names=["weight", "${oc.env:HOME}"],
    num_examples={"train": 70_000, "val": 11, "test": 13},
    options={
        "modalities": ["image_left", "text"],
        "num_classes": 2,
        "batch_size": 7,
        "image": {"channels": 3, "size": [5, 11], "resize": True},
        "target": ["weight", "${oc.env:HOME}"],
    },
    target_mean=[2.0, 3.0],
    target_std=[5.0, 7.0],
)


def test_resolving_gives_a_new_config_in_which_names_are_text(compose_run):
    config = compose_run("data=manifest", "data.path=my.csv")
    before = OmegaConf.to_yaml(config)
    final = resolve(config, FACTS)
    assert OmegaConf.to_yaml(config) == before
    assert OmegaConf.to_yaml(resolve(final, FACTS)) == OmegaConf.to_yaml(final)
    plain = plain_config(final, FACTS)
    assert plain["class_names"] == plain["data"]["target"] == ["weight", "${oc.env:HOME}"]
    assert plain["model"]["adapters"]["image_left"]["size"] == [5, 11]
    assert set(plain["task"]["model"]["adapters"]) == {"image_left", "text"}
    objective = plain["task"]["objective"]
    assert (objective["out_dim"], objective["mean"], objective["std"]) == (2, [2, 3], [5, 7])
    assert plain["trainer"]["max_epochs"] == 1, "of 10,000 steps"


def test_balanced_weights_come_from_the_training_examples_of_each_class(compose_run):
    options = ["data=manifest", "data.path=my.csv", "task.objective.class_weights=balanced"]
    facts = replace(FACTS, targets="a class", class_names=["a", "b", "c"], class_counts=[30, 10, 0])
    final = resolve(compose_run(*options), facts)
    weights = list(final.task.objective.class_weights)
    expected = compute_class_weight("balanced", classes=np.arange(2), y=[0] * 30 + [1] * 10)
    assert weights == pytest.approx([*expected, 1.0])
    with pytest.raises(ValueError, match=r"class_weights=balanced is of classes.* is values"):
        resolve(compose_run(*options), FACTS)


def test_embeddings_of_words_are_dropped_and_begin_small_and_those_of_bytes_as_ever(compose_run):
    config = compose_run("data=manifest", "data.path=my.csv", "model.adapters.text.dropout=0.1")
    text = {"tokenizer": "words", "vocabulary": "a b", "vocab_size": 9, "max_length": 8}
    facts = replace(FACTS, options={"modalities": ["text_title", "text_body"], "text": text})
    for adapter in resolve(config, facts).model.adapters.values():
        assert 0 < adapter.init_std < 0.02
        assert 0 < adapter.token_dropout < 1
        assert adapter.dropout == 0.1
    text |= {"tokenizer": "bytes", "vocabulary": None, "vocab_size": 262}
    adapters = resolve(config, facts).model.adapters
    assert adapters.text_title.init_std is adapters.text_body.token_dropout is None


def test_a_final_config_that_the_facts_do_not_fit_is_refused(compose_run):
    fixed = ["modality@model.adapters=[text]", "data.modalities=[text]", "data.path=my.csv"]
    config = compose_run("data=manifest", *fixed)
    check_config(config)
    facts = replace(FACTS, options={"modalities": ["text"], "targets": "values"})
    with pytest.raises(ValueError, match=r"trains on a class .*values: choose task=regression"):
        check_final(resolve(config, facts), facts)


def test_transforms_cannot_change_once_the_splits_are_made(compose_run):
    data, _ = build_data(compose_run())
    with pytest.raises(RuntimeError, match="before setup"):
        data.set_transforms(augment={"image": [torch.neg]})
