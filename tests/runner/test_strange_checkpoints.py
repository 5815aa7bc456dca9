"""A stranger's checkpoint executes, opens and writes nothing, whatever its config says."""

import copy
import os
import sys
from pathlib import Path

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from perceiver.callbacks import BestCheckpoint
from runner.build import build_data, build_task
from runner.checkpoints import KeptFiles, read_checkpoint
from runner.evaluation import run_evaluation
from runner.prediction import run_prediction
from runner.rebuild import rebuild
from runner.training import run_training
from tests.configs import compose_config

PROJECT = Path(__file__).parents[2]
ACTS = ("socket.", "subprocess.", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.mkdir")
ACTS += ("os.remove", "os.rename", "os.symlink", "shutil.", "tempfile.", "exec", "urllib.")
_seen: list[str] | None = None


def _watch(event, arguments):
    if _seen is None:
        return
    if event == "open":
        path = arguments[0]
        own = (sys.prefix, sys.base_prefix, str(PROJECT), "/proc", "/sys", "/dev")
        if isinstance(path, str | bytes) and not os.fsdecode(path).startswith(own):
            _seen.append(f"open {os.fsdecode(path)}")
    elif event.startswith(ACTS) and event != "exec":
        _seen.append(f"{event} {arguments}")


sys.addaudithook(_watch)  # hooks cannot be removed: outside of `watched` it does nothing


@pytest.fixture
def watched(tmp_path):
    """A list of what Python opened, made, removed, ran and connected to but for checkpoints."""

    class Watch:
        def __enter__(self):
            global _seen
            _seen = self.seen = []

        def __exit__(self, *_):
            global _seen
            _seen = None

        def acts(self):
            return [act for act in self.seen if not act.endswith("strange.ckpt")]

    return Watch()


@pytest.fixture
def checkpoint_of(compose_run, tmp_path):
    """checkpoint_of("data=…", …) → a checkpoint as a run would write it, untrained."""

    def make(*overrides):
        config = compose_run(*overrides)
        datamodule, final = build_data(config)
        task = build_task(final, datamodule.facts())
        path = tmp_path / "strange.ckpt"
        torch.save({"state_dict": task.state_dict(), "run_config": task.run_config}, path)
        return path

    return make


@pytest.fixture(scope="module")
def default_job():
    """What a checkpoint of the default job holds."""
    config = compose_config(overrides=("paths.run_dir=run",))
    datamodule, final = build_data(config)
    task = build_task(final, datamodule.facts())
    return {"state_dict": task.state_dict(), "run_config": dict(task.run_config)}


@pytest.fixture
def changed(default_job, tmp_path):
    """changed(lambda config: …) → the checkpoint of the default job with a changed config."""

    def make(change):
        checkpoint = copy.deepcopy(default_job)
        change(checkpoint["run_config"])
        torch.save(checkpoint, tmp_path / "strange.ckpt")
        return tmp_path / "strange.ckpt"

    return make


TEMPLATE = (
    'reference::data:application/json,{"version":1,"templates":{"f":"{{c}}"},"refs":{"dataset.json"'
    ':"x"}}'
)
SHARDS = "datamodules.layouts.shards.data.ShardsDataModule"
COMMON = {"modalities": ["text"], "batch_size": 2}


@pytest.mark.parametrize(
    "data",
    [
        {"_target_": SHARDS, "root": TEMPLATE, **COMMON},
        {"_target_": SHARDS, "root": "http://127.0.0.1:9/x", **COMMON},
        {"_target_": SHARDS, "root": "simplecache::http://127.0.0.1:9/x", **COMMON},
        {
            "_target_": "datamodules.layouts.hf_dataset.HFDatasetDataModule",
            "path": TEMPLATE,
            **COMMON,
        },
        {
            "_target_": "datamodules.layouts.manifest.ManifestDataModule",
            "path": "/etc/passwd",
            **COMMON,
        },
        {
            "_target_": "datamodules.sets.mnist.MNISTDataModule",
            "root": "/nowhere/made",
            "download": True,
            "outside": True,
            "cache_dir": "/nowhere/cache",
            "modalities": ["image"],
            "batch_size": 2,
        },
        {
            "_target_": "datamodules.layouts.text_tsv.TextTSVDataModule",
            "text": {"max_length": 5, "tokenizer": "/etc/hostname"},
            **COMMON,
        },
    ],
    ids=["reference", "http", "simplecache", "hf_dataset", "manifest", "mnist", "tokenizer"],
)
def test_no_place_is_taken_from_a_checkpoint(changed, watched, data):
    path = changed(lambda config: config.update(data=data))
    with watched, pytest.raises(ValueError, match="no file is opened on a checkpoint's word alone"):
        rebuild(path)
    assert watched.acts() == []


def test_what_may_be_repeated_is_shown_and_what_is_strange_is_not(changed):
    told = {"_target_": SHARDS, "root": "/my data/set", **COMMON}
    path = changed(lambda config: config.update(data=told))
    with pytest.raises(ValueError, match=r"by adding 'data\.root=/my data/set'$"):
        rebuild(path)
    for strange in ("x\x1b]0;owned\x07", "a\nb", "x' $(touch y)", "a{b}", "\u202egnp.exe", 7):
        path = changed(lambda config, strange=strange: config["data"].update(told, root=strange))
        with pytest.raises(ValueError, match=r"by adding data\.root=…$"):
            rebuild(path)


def test_folders_to_write_to_and_leave_to_go_outside_are_dropped(checkpoint_of, photographs):
    given = ["data=image_folder", f"data.root={photographs}", "data.outside=true"]
    path = checkpoint_of(*given, f"data.cache_dir={photographs}/cache", "data.num_classes=2")
    _, data, config = rebuild(path, data_options={"root": str(photographs)})
    assert config["data"]["outside"] is True
    assert data.outside is False
    assert data.cache_dir is None
    _, data, _ = rebuild(path, data_options={"root": str(photographs), "outside": True})
    assert data.outside is True


BOMB = {"_target_": "os.system", "_args_": ["true"]}
DECODER = ("task", "model", "decoder")


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (DECODER, BOMB),
        (("task", "model", "modality_dropout"), {"p": {"image": {"deep": [[BOMB]]}}}),
        (("task", "optimizer"), {"_target_": "timm.create_model", "pretrained": True}),
        (
            ("task", "model", "encoder"),
            {"_target_": "timm.models.VisionTransformer", "pretrained_cfg": {"url": "http://x"}},
        ),
        (DECODER, {"_target_": "torch.nn.modules.module.torch.hub.load", "_args_": ["a/b", "c"]}),
        (DECODER, {"_target_": "torch.nn.parallel.DistributedDataParallel"}),
        (DECODER, {"_target_": "torch.nn.functional.linear"}),
        (DECODER, {"_target_": "torch.jit.load", "f": "x"}),
        (DECODER, {"_target_": "torch.nn.Linear.__init__.__globals__"}),
        (DECODER, {"_target_": "perceiver.tasks.schedules.math.cos"}),
        (DECODER, {"_target_": "perceiver.callbacks.BestCheckpoint", "dirpath": "x"}),
        (DECODER, {"_target_": "datamodules.layouts.shards.reader.ShardReader", "root": "x"}),
        (DECODER, {"_target_": "pack.main"}),
        (DECODER, {"_target_": "datamodules.sets.digits.DigitsDataModule"}),
        (DECODER, {"_target_": "torch.nn.Linear", "_args_": [2, 3]}),
        (DECODER, {"_target_": "torch.nn.Linear", "_recursive_": False}),
        (DECODER, {"_target_": "torch.nn.Linear", "_partial_": "yes"}),
        (DECODER, {"_target_": ["torch.nn.Linear"]}),
        (DECODER, {"_target_": "torch.nn.Linear", "in_features": "http://x", "out_features": 2}),
        (DECODER, {"_target_": "torch.nn.Linear", "in_features": "../x", "out_features": 2}),
        (DECODER, {"_target_": "torch.nn.Linear", "in_features": "${oc.env:HOME}"}),
        (DECODER, {"_target_": "torch.nn.Linear", "in_features": 2, "surprise": 3}),
        (DECODER, {"_target_": "torch.nn.Linear", "in_features": [2], "out_features": 2}),
        (("task", "_target_"), "torch.nn.Identity"),
        (("data", "_target_"), "perceiver.tasks.SupervisedTask"),
        (("data", "_target_"), "pytorch_lightning.LightningDataModule"),
        (("data", "transform"), {"image": [BOMB]}),
        (("data", "num_workers"), "http://127.0.0.1:9"),
        (("data", "crop"), "/etc/passwd"),
        (("data", "classes"), [BOMB]),
        (("data", 7), 7),
    ],
    ids=str,
)
def test_only_known_classes_with_plain_options_of_their_types_are_built(
    changed, watched, where, value
):
    def change(config):
        node = config
        for name in where[:-1]:
            node = node[name]
        node[where[-1]] = value

    path = changed(change)
    with watched, pytest.raises(ValueError, match=r"strange\.ckpt"):
        rebuild(path)
    assert watched.acts() == []


def test_a_list_within_lists_without_end_is_refused(changed):
    nested = []
    for _ in range(300):
        nested = [nested]
    path = changed(lambda config: config["data"].update(missing=nested))
    with pytest.raises(ValueError, match="not plain data"):
        rebuild(path)


def test_segments_of_a_checkpoint_stay_in_the_root(checkpoint_of, tiny_layout):
    root, _ = tiny_layout("audioset")
    path = checkpoint_of("data=audioset", f"data.root={root}")
    assert rebuild(path, data_options={"root": str(root)})[1].segments["test"]
    checkpoint = torch.load(path, weights_only=True)
    for name in ("/etc/passwd", "../secret.csv", "a/../../b.csv", "~/x", "file:///etc/passwd"):
        checkpoint["run_config"]["data"]["segments"]["test"] = name
        torch.save(checkpoint, path)
        with pytest.raises(ValueError, match="names the place"):
            rebuild(path, data_options={"root": str(root)})


def test_a_prediction_opens_no_data_and_evaluation_says_what_it_needs(
    checkpoint_of, compose_run, sentences, capsys
):
    path = checkpoint_of("data=text_tsv", f"data.root={sentences}")
    given = [f"ckpt_path={path}", "text=???"]
    with_quotes = [given[0], "text='a good film'"]
    assert run_prediction(compose_run(*with_quotes, name="predict")).shape == (1, 2)
    assert run_prediction(compose_run(*given, name="predict")).shape == (1, 2)
    with pytest.raises(ValueError, match=f"by adding data.root={sentences}$"):
        run_evaluation(compose_run(given[0], name="evaluate"))


SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1"]
SHORT += ["test=false", "logger=none", "task.val_subsets=none"]


def test_resuming_loads_and_removes_nothing_that_a_checkpoint_names(compose_run, tmp_path, watched):
    """The states of both callbacks name a URL, and files of this folder and of another."""
    run_training(compose_run(*SHORT))
    precious = [tmp_path / "precious.ckpt", tmp_path / "run" / "checkpoints" / "thesis.txt"]
    for path in precious:
        path.write_text("mine")
    folder = tmp_path / "run" / "checkpoints"
    url, (elsewhere, beside) = "http://127.0.0.1:9/x.ckpt", map(str, precious)
    for dirpath, places in ((str(folder), (url, beside)), ("/elsewhere", (elsewhere, url))):
        checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
        states = [s for s in checkpoint["callbacks"].values() if "best_model_path" in s]
        for state, place in zip(states, places, strict=True):
            state |= {"best_model_path": place, "kth_best_model_path": place}
            state |= {"last_model_path": place, "best_k_models": {place: torch.tensor(9.0)}}
            state["dirpath"] = dirpath
        torch.save(checkpoint, folder / "strange.ckpt")
        again = ["trainer.max_epochs=2", f"ckpt_path={folder}/strange.ckpt"]
        with watched:
            run_training(compose_run(*SHORT, *again))
        acts = "\n".join(watched.seen)
        assert not any(word in acts for word in ("socket.connect", beside, elsewhere))
    assert [path.read_text() for path in precious] == ["mine", "mine"]


def test_kept_files_are_those_beside_the_checkpoint(tmp_path):
    (tmp_path / "best.ckpt").write_text("")
    state = {
        "best_model_path": "/old/place/best.ckpt",
        "best_k_models": {"/old/place/best.ckpt": 1},
    }
    state |= {"kth_best_model_path": "", "last_model_path": "s3://x/last.ckpt", "dirpath": "/old"}
    checkpoint = {"callbacks": {"a": state, "b": {"wait_count": 3}}}
    trainer = type("Trainer", (), {"ckpt_path": str(tmp_path / "last.ckpt")})
    KeptFiles().on_load_checkpoint(trainer, None, checkpoint)
    best = str(tmp_path / "best.ckpt")
    assert state == {
        "best_model_path": best,
        "best_k_models": {best: 1},
        "kth_best_model_path": best,
        "last_model_path": str(tmp_path / "last.ckpt"),
        "dirpath": str(tmp_path),
    }
    for kind in (BestCheckpoint, ModelCheckpoint):
        assert set(state) <= set(kind(dirpath=tmp_path).state_dict())


def test_a_checkpoint_called_like_a_chain_of_urls_is_refused(tmp_path):
    path = tmp_path / "reference::data:x"
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ValueError, match="must not be called"):
        read_checkpoint(path)
