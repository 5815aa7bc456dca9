"""Checkpoints are plain data, belong to one model, and cannot make the project run code."""

import os
import pickle
from collections import OrderedDict

import pytest
import torch
from torch import nn

from runner.checkpoints import check_same_model, read_checkpoint
from runner.rebuild import rebuild
from runner.training import run_training
from tests.configs import compose_config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint of a short run."""
    folder = tmp_path_factory.mktemp("run")
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "test=false"]
    short += ["trainer.limit_val_batches=1", "task.val_subsets=none"]
    run_training(compose_config(overrides=(f"paths.run_dir={folder}", *short)))
    return folder / "checkpoints" / "best.ckpt"


def test_checkpoint_is_rebuilt_with_its_weights_and_options(trained):
    task, datamodule, config = rebuild(trained, data_options={"batch_size": 11, "root": None})
    weights = torch.load(trained, weights_only=True)["state_dict"]
    for name, value in task.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=0)
    assert datamodule.batch_size == 11
    assert config["class_names"] == [str(digit) for digit in range(10)]


def test_unknown_data_option_is_refused(trained):
    with pytest.raises(ValueError, match="no option roof"):
        rebuild(trained, data_options={"roof": "x"})


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/exploded",)

    path = tmp_path / "bomb.ckpt"
    torch.save({"state_dict": Bomb()}, path)
    with pytest.raises(ValueError, match="plain data"):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps({"state_dict": Bomb()}))
    with pytest.raises(ValueError, match="plain data"):
        read_checkpoint(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.Popen",
        "torch.load",
        "torch.hub.load",
        "perceiver.callbacks.reports.Path",  # reached through a module that imports it
        "perceiver.callbacks.reports.torch.save",
        "torchvision.datasets.utils.download_url",
        "datamodules.core.dataset.hold_out",  # ours, but not a thing that a model is made of
    ],
)
def test_a_config_that_names_code_to_run_is_refused(trained, tmp_path, target):
    checkpoint = torch.load(trained, weights_only=True)
    checkpoint["run_config"]["task"]["model"]["decoder"]["queries"] = {"_target_": target}
    torch.save(checkpoint, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match="must not name"):
        rebuild(tmp_path / "evil.ckpt")


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:HOME}",
        ("${oc.env:HOME}",),
        ({"_target_": "os.system", "_args_": ["true"]},),  # Hydra builds what is in a tuple
        OrderedDict(_target_="os.system"),
        {"torch.nn.ReLU"},
    ],
)
def test_a_config_that_is_not_plain_data_is_refused(trained, tmp_path, value):
    checkpoint = torch.load(trained, weights_only=True)
    checkpoint["run_config"]["data"]["root"] = value
    torch.save(checkpoint, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match="not plain data"):
        rebuild(tmp_path / "evil.ckpt")


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut short", b"a,b\n"])
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "broken.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.ckpt is not a checkpoint"):
        read_checkpoint(path)


def test_a_file_without_weights_is_no_checkpoint(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="no state_dict"):
        read_checkpoint(tmp_path / "x.ckpt")


def test_a_checkpoint_of_another_model_is_refused_naming_the_difference():
    small, large = nn.Linear(2, 3), nn.Linear(2, 5)
    with pytest.raises(ValueError, match=r"its weight is \(3, 2\), here it is \(5, 2\)"):
        check_same_model({"state_dict": small.state_dict()}, large, "x.ckpt")
    with pytest.raises(ValueError, match="it has no bias"):
        check_same_model({"state_dict": {"weight": small.weight}}, small, "x.ckpt")
    with pytest.raises(ValueError, match="this one has no extra"):
        check_same_model({"state_dict": small.state_dict() | {"extra": 1}}, small, "x.ckpt")
