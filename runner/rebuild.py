"""A trained task and its data module, rebuilt from a checkpoint without trusting it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import get_object, instantiate
from torch import nn
from torch.optim import Optimizer

from perceiver.tasks import Task
from perceiver.tasks import schedules as schedule_functions
from runner.checkpoints import check_same_model, read_checkpoint

# A checkpoint's config names what to build. Only these may be named: a stranger's file must not
# reach anything that runs code, writes files or opens connections.
_PACKAGES = ("perceiver", "datamodules", "torch", "torchvision", "torchaudio", "timm")
_KINDS = (nn.Module, Optimizer, pl.LightningDataModule)


def rebuild(
    path: str | Path, *, data_options: Mapping[str, Any] | None = None
) -> tuple[Task, pl.LightningDataModule, dict[str, Any]]:
    """The task with its trained weights, its data module (not set up) and the run's config.

    Args:
        path: a checkpoint that train.py wrote.
        data_options: options of the data module to replace, where they are not None.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, was not written by train.py, or names what it must not.
    """
    checkpoint = read_checkpoint(path)
    config = checkpoint.get("run_config")
    if not isinstance(config, dict) or not {"task", "data"} <= set(config):
        raise ValueError(f"{path} does not say how to rebuild its model: train.py did not write it")
    replaced = {name: value for name, value in (data_options or {}).items() if value is not None}
    unknown = sorted(set(replaced) - set(config["data"]))
    if unknown:
        raise ValueError(f"the data set of {path} has no option {', '.join(unknown)}")
    # Training alone augments, and nothing is downloaded on a stranger's word.
    untrained = {n: None for n in ("augment", "mix", "download") if n in config["data"]}
    data = config["data"] | untrained | replaced
    for target in _targets({"task": config["task"], "data": data}):
        _check_target(target, path)
    datamodule = instantiate(data)
    task: Task = instantiate(config["task"], _convert_="all")
    check_same_model(checkpoint, task, path)
    task.load_state_dict(checkpoint["state_dict"])
    task.run_config = config
    return task.eval(), datamodule, config


def _targets(node: Any) -> Iterator[str]:
    """Every `_target_` below a node; what is not the plain data of a config is refused.

    Hydra would also build what stands in a tuple, say, and OmegaConf evaluates text with "${".
    """
    if type(node) is dict:
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from _targets(value)
    elif type(node) is list:
        for value in node:
            yield from _targets(value)
    elif type(node) not in (str, int, float, bool, type(None)) or "${" in str(node):
        raise ValueError(f"the checkpoint's config holds {node!r}, which is not plain data")


def _check_target(target: str, path: str | Path) -> None:
    refusal = ValueError(f"{path} asks for {target!r}, which a checkpoint must not name")
    if target.partition(".")[0] not in _PACKAGES:
        raise refusal
    found = get_object(target)
    # Where it is defined counts, not the road to it: a module's imports are its attributes too.
    home = getattr(found, "__module__", "") or ""
    if home.partition(".")[0] not in _PACKAGES:
        raise refusal
    is_schedule = home == schedule_functions.__name__ and inspect.isfunction(found)
    if not is_schedule and not (inspect.isclass(found) and issubclass(found, _KINDS)):
        raise refusal
