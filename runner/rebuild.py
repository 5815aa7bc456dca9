"""A trained task and its data module, rebuilt from a checkpoint without trusting it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from datamodules.readers.text import BYTES, WORDS
from perceiver.tasks import Task
from runner.checkpoints import check_same_model, read_checkpoint
from runner.pretrained import without_weights
from runner.trusted import build, check_plain, check_size

# Options of data that name places. A checkpoint may be a stranger's: what lies there is opened
# where the user names it alone.
_TOKENIZER = "text.tokenizer"
_NEEDED = ("path", "root", _TOKENIZER)
_PLACES = (*_NEEDED, "local", "cache_dir", "outside")
# Options whose text was found in data: columns, classes and the like may be called anything.
_NAMES = (
    "category",
    "classes",
    "columns",
    "group",
    "id",
    "missing_cells",
    "separator",
    "split",
    "target",
)
# Training alone augments, and nothing is downloaded on a stranger's word.
_OF_TRAINING = ("augment", "mix", "download")
_NOWHERE = "not-opened"  # stands for places of data that are not read
# What is nothing special to a terminal or to Hydra.
_SHOWN = re.compile(r"[\w./:+@%-]([\w ./:+@%-]{0,200}[\w./:+@%-])?")


def rebuild(
    path: str | Path, *, data_options: Mapping[str, Any] | None = None, reads_data: bool = True
) -> tuple[Task, pl.LightningDataModule, dict[str, Any]]:
    """The task with its trained weights, its data module (not set up) and the run's config.

    Args:
        path: a checkpoint that train.py wrote.
        data_options: options of the data module to replace, where they are not None; what reads
            texts is called "text.tokenizer".
        reads_data: whether the data module will be set up, so that it must know where data lie.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, was not written by train.py, or names what it must not, and
            where data were opened of which `data_options` do not say where they lie.
    """
    checkpoint = read_checkpoint(path)
    config = checkpoint.get("run_config")
    if not isinstance(config, dict) or not all(
        isinstance(config.get(name), dict) for name in ("task", "data")
    ):
        raise ValueError(f"{path} does not say how to rebuild its model: train.py did not write it")
    try:
        check_size(config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    given = {name: value for name, value in (data_options or {}).items() if value is not None}
    data, recorded = _without_places(config["data"])
    described = without_weights(config["task"])
    if unknown := sorted(set(given) - set(data) - set(recorded)):
        raise ValueError(f"the data set of {path} has no option {', '.join(unknown)}")
    try:
        check_plain(recorded, names=("path",), places=_PLACES)
        vocabulary = _pop_vocabulary(data)
        check_plain(data, names=_NAMES)
        check_plain(described)
        lacking = {n: recorded[n] for n in _NEEDED if recorded.get(n) and n not in given}
        if not reads_data:
            given |= {name: _NOWHERE for name in lacking if name != _TOKENIZER}
            lacking = {name: place for name, place in lacking.items() if name == _TOKENIZER}
        if lacking:
            shown = " ".join(_override(name, place) for name, place in lacking.items())
            raise ValueError(
                "no file is opened on a checkpoint's word alone: name what its run read, "
                f"by adding {shown}"
            )
        if _TOKENIZER in given:
            data["text"] |= {"tokenizer": given.pop(_TOKENIZER)}
        if vocabulary is not None:
            data["text"] |= {"vocabulary": vocabulary}
        data |= given
        _check_shapes(checkpoint["state_dict"], described)
        datamodule = build(data, kind=pl.LightningDataModule, where="data")
        task = build(described, kind=Task, where="task")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(task, Task) or not isinstance(datamodule, pl.LightningDataModule):
        raise ValueError(f"{path} does not say how to rebuild its model: train.py did not write it")
    check_same_model(checkpoint, task, path)
    task.load_state_dict(checkpoint["state_dict"])
    task.run_config = config
    return task.eval(), datamodule, config


def _check_shapes(weights: Mapping[str, torch.Tensor], task: Mapping[str, Any]) -> None:
    """Compare the shapes of the model before any memory is taken for it.

    Raises:
        ValueError: a weight is of another shape than the config says.
    """
    try:
        with torch.device("meta"):
            model = build(task.get("model"), where="task.model")
        shapes = {f"model.{name}": values.shape for name, values in model.state_dict().items()}
    except (ValueError, AttributeError, NotImplementedError):
        return  # the task itself says what is wrong
    for name, shape in shapes.items():
        if name in weights and weights[name].shape != shape:
            raise ValueError(
                f"its {name} is {tuple(weights[name].shape)}, its config says {tuple(shape)}: "
                "one of them was changed"
            )


def _without_places(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of a run's data without those of training and of places, and the latter."""
    data = {name: value for name, value in options.items() if name not in _OF_TRAINING}
    places = {name: data.pop(name) for name in _PLACES if name in data}
    if isinstance(data.get("text"), dict):
        text = data["text"] = dict(data["text"])
        if text.get("tokenizer", BYTES) not in (BYTES, WORDS):
            places[_TOKENIZER] = text.pop("tokenizer")
    return data, places


def _pop_vocabulary(data: dict[str, Any]) -> str | None:
    """Takes out the words of the training texts, which may be any: nothing evaluates them."""
    text = data.get("text")
    words = text.pop("vocabulary", None) if isinstance(text, dict) else None
    if words is not None and type(words) is not str:
        raise ValueError("its config holds a vocabulary that is no text")
    return words


def _override(name: str, place: Any) -> str:
    """What to write on the command line for a place; a strange one is not repeated."""
    parts = place if isinstance(place, dict) else {"": place}
    if not all(isinstance(text, str) and _SHOWN.fullmatch(text) for text in parts.values()):
        return f"data.{name}=…"
    if isinstance(place, dict):
        place = "{" + ",".join(f"{part}:{text}" for part, text in place.items() if text) + "}"
    return shlex.quote(f"data.{name}={place}")
