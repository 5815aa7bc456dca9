"""Prediction for one example from files: read as in training, run, print."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import to_absolute_path
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from torch import Tensor

from datamodules.collate import Collator, Example
from datamodules.readers import kind_of
from datamodules.readers.image import ImageOptions
from perceiver.tasks import Regression
from runner.rebuild import rebuild


def run_prediction(config: DictConfig) -> Tensor:
    """Predict from whatever modalities are given; prints, and returns (1, k)."""
    task, datamodule, trained = rebuild(config.ckpt_path)
    if not datamodule.offers:
        raise ValueError(
            f"the model of {config.ckpt_path} answers problems that {type(datamodule).__name__} "
            "draws, which no file holds: test it with evaluate.py"
        )
    others = {"ckpt_path", "top", "paths"}
    given = {n: config[n] for n in config if n not in others and config[n] is not None}
    unknown = [name for name in given if name not in datamodule.modalities]
    if unknown or not given:
        problem = f"does not read {', '.join(unknown)}" if unknown else "needs something to read"
        raise ValueError(
            f"the model {problem}: give some of "
            + " ".join(
                f"{name}=…" if name in config else f"+{name}=…" for name in datamodule.modalities
            )
        )
    inputs: dict[str, Any] = dict.fromkeys(datamodule.modalities)
    given = OmegaConf.to_container(OmegaConf.create(given))
    inputs |= {name: read(name, value, datamodule) for name, value in given.items()}
    batch = Collator(datamodule.fields())([Example(inputs, 0, "the example")])
    with torch.inference_mode():
        answer = task.predict_step(batch, 0)
    names = trained.get("class_names") or [str(n) for n in range(answer.shape[1])]
    is_value = isinstance(task.objective, Regression)
    table = Table("output" if is_value else "class", "value" if is_value else "probability")
    order = range(len(names)) if is_value else answer[0].argsort(descending=True)[: config.top]
    for index in order:
        table.add_row(names[int(index)], f"{float(answer[0, int(index)]):.4f}")
    Console().print(f"from {', '.join(given)}")
    Console().print(table)
    return answer


def read(modality: str, value: Any, datamodule: pl.LightningDataModule) -> Tensor | None:
    """The tensor of one modality, read with the options that the model was trained with.

    Pictures of another size are scaled, whatever training did with them.
    """
    name = kind_of(modality)
    options, cell = datamodule.kinds[name], value
    if isinstance(options, ImageOptions) and not options.resize:
        options = replace(options, resize=True)
    if name == "text":
        cell = str(value)  # also where it looks like a number
    elif options.suffixes:
        cell = Path(to_absolute_path(str(value)))
        if not cell.is_file():
            raise FileNotFoundError(f"there is no {modality} file {cell}")
    return options.decode(cell, where=f"{modality}={value}")
