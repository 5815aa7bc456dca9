"""What classes, columns and files are called is text: nothing evaluates it, and it returns."""

import csv
import json

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from PIL import Image

from datamodules.layouts.shards.writer import pack
from runner.build import build_data, build_task
from runner.evaluation import run_evaluation
from runner.literal import can_be_literal, literal
from runner.prediction import run_prediction
from runner.rebuild import rebuild
from runner.training import run_training, save_config

SECRET = "the secret of this machine"
NAMES = ["${oc.env:TOKEN}", "${unused:made}", "costs ${5}", "\\${", "a\\\\${b}\\", "${", "???"]
NAMES += ["_target_", "{_target_: os.system}", "null", "yes", "1e3", "0x1F", "~", "12:30", "é: #"]


@pytest.fixture(autouse=True)
def _secret(monkeypatch, tmp_path):
    monkeypatch.setenv("TOKEN", SECRET)
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "made").exists()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("name", [*NAMES[:6], "x${a\\}${b}", "\\\\${a}", "${a.b}${c:d}", "$${"])
def test_a_literal_is_what_it_was(name):
    config = OmegaConf.create({"a": literal(name), "b": [literal({"c": name})]})
    assert (config.a, config.b[0].c) == (name, name)
    assert OmegaConf.to_container(config, resolve=True) == {"a": name, "b": [{"c": name}]}


def test_what_a_config_cannot_hold_is_told_apart():
    assert can_be_literal({"a": [1, None, "x???", "_target_"]})
    assert not can_be_literal({"a": ["x", ["???"]]})
    assert not can_be_literal([{"_target_": "os.system"}])


def table(path):
    columns = ["text", "${oc.env:TOKEN}", "???", "label"]
    rows = [[f"a text, number {n}", n / 7, n % 5, name] for n, name in enumerate(NAMES * 6)]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "data.batch_size=8"]
SHORT.append("task.test_subsets=none")


def test_a_table_with_strange_names_is_trained_on_evaluated_and_predicted(
    compose_run, tmp_path, capsys
):
    table(tmp_path / "my.csv")
    given = [f"data.path={tmp_path}/my.csv", "data.missing_cells=['']", "task.val_subsets=none"]
    run_training(compose_run("data=manifest", "logger=[csv,tensorboard]", *given, *SHORT))
    run = tmp_path / "run"
    path = run / "checkpoints" / "best.ckpt"
    saved = torch.load(path, weights_only=True)["run_config"]
    classes = sorted(set(NAMES) - {"null"} | {"null"})
    assert saved["class_names"] == saved["data"]["classes"] == classes
    assert saved["data"]["columns"]["array"] == ["${oc.env:TOKEN}", "???"]
    config = OmegaConf.load(run / "config.yaml")
    assert OmegaConf.to_container(config, resolve=True)["class_names"] == classes
    assert config.data.columns.array[0] == "${oc.env:TOKEN}"
    where = [f"ckpt_path={path}", f"data.path={tmp_path}/my.csv"]
    run_evaluation(compose_run(*where, f"paths.run_dir={tmp_path}/again", name="evaluate"))
    results = json.loads((run / "results.json").read_text())
    again = json.loads((tmp_path / "again" / "results.json").read_text())
    assert again["test/loss"] == pytest.approx(results["test/loss"], rel=1e-5)
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        told = {cell for row in csv.reader(file) for cell in row}
    assert told & {"${oc.env:TOKEN}", "costs ${5}", "???"}
    capsys.readouterr()
    run_prediction(compose_run(where[0], "text=a text", "top=99", name="predict"))
    shown = capsys.readouterr().out
    assert all(name in shown for name in classes)


@pytest.fixture
def returned(compose_run, tmp_path):
    """returned("data=…", …) → the data module, and as it is rebuilt from a run's checkpoint."""

    def make(*overrides, **places):
        config = compose_run(*overrides, "data.batch_size=4")
        data, final = build_data(config)
        task = build_task(final, data.facts())
        plain = task.run_config
        save_config(plain, tmp_path)
        torch.save({"state_dict": task.state_dict(), "run_config": plain}, tmp_path / "x.ckpt")
        again = rebuild(tmp_path / "x.ckpt", data_options=places)[1]
        again.setup()
        held = OmegaConf.to_container(OmegaConf.load(tmp_path / "config.yaml"), resolve=True)
        assert held["class_names"] == plain["class_names"] == data.class_names
        assert again.class_names == data.class_names
        text = (tmp_path / "config.yaml").read_text(encoding="utf-8")
        assert yaml.safe_load(text)["class_names"] == literal(data.class_names)
        return data, again

    return make


def picture_folders(root):
    for n, name in enumerate(NAMES):
        for split in ("train", "val", "test"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for m in range(2):
                Image.new("RGB", (9, 9), (n, m, 9)).save(folder / f"{name}-{m}.png")


def test_folders_of_pictures_and_their_shards_keep_strange_names(returned, tmp_path):
    root = tmp_path / "pictures"
    picture_folders(root)
    small = ["data.image.size=[8,8]", "data.num_workers=0"]
    data, _ = returned("data=image_folder", f"data.root={root}", *small, root=str(root))
    assert data.class_names == sorted(NAMES)
    assert f"train/{NAMES[0]}/{NAMES[0]}-1.png" in list(data.splits["train"].source.ids)
    out = tmp_path / "shards"
    pack(data, str(out))
    packed, again = returned("data=shards", f"data.root={out}", root=str(out))
    assert packed.class_names == sorted(NAMES)
    ids = list(data.splits["test"].source.ids)
    assert [str(id) for id in again.splits["test"].source.ids] == ids


def test_features_of_a_dataset_keep_strange_names(returned, tmp_path):
    datasets = pytest.importorskip("datasets")
    count = len(NAMES)
    rows = {"text": [f"a text, number {n}" for n in range(6 * count)]}
    rows |= {"${oc.env:TOKEN}": [n / 7 for n in range(6 * count)], "label": [*range(count)] * 6}
    part = datasets.Dataset.from_dict(rows)
    part = part.cast_column("label", datasets.ClassLabel(names=NAMES))
    part.save_to_disk(str(tmp_path / "set"))
    path = str(tmp_path / "set")
    data, again = returned("data=hf_dataset", f"data.path={path}", path=path)
    assert data.class_names == NAMES
    assert again.schema.columns["array"] == ["${oc.env:TOKEN}"]


def test_a_description_of_shards_names_nothing_to_build(returned, tmp_path):
    root = tmp_path / "pictures"
    picture_folders(root)
    data, _ = returned("data=image_folder", f"data.root={root}", root=str(root))
    pack(data, str(tmp_path / "shards"))
    path = tmp_path / "shards" / "dataset.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    bomb = {"_target_": "os.mkdir", "_args_": ["made"]}
    told["kinds"]["image"]["size"] = bomb
    path.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(ValueError, match="describes no shards"):
        returned("data=shards", f"data.root={tmp_path}/shards", root=f"{tmp_path}/shards")
