"""Prediction for one example from files: read as in training, run, print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import to_absolute_path
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from datamodules.core.collate import Collator, Example
from datamodules.core.decoding import decode_all
from datamodules.readers import Cell, kind_of
from datamodules.readers.image import ImageReader
from datamodules.transforms.apply import finish
from perceiver.names import shown
from perceiver.tasks import Objective, Regression
from runner.rebuild import rebuild


def run_prediction(config: DictConfig) -> Tensor | Mapping[str, Tensor]:
    """Predict from whatever modalities are given; prints, and returns (1, k), of heads by name."""
    tokenizer = {"text.tokenizer": config.data.text.tokenizer}
    task, datamodule, trained = rebuild(config.ckpt_path, data_options=tokenizer, reads_data=False)
    if not datamodule.available_modalities:
        raise ValueError(
            f"the model of {config.ckpt_path} answers problems that {type(datamodule).__name__} "
            "draws, which no file holds: test it with evaluate.py"
        )
    others = {"ckpt_path", "data", "top", "paths"}
    inputs = OmegaConf.to_container(config, resolve=True)  # where "???" is a text like any other
    given = {n: value for n, value in inputs.items() if n not in others and value is not None}
    unknown = [name for name in given if name not in datamodule.modalities]
    if unknown or not given:
        problem = f"does not read {', '.join(unknown)}" if unknown else "needs something to read"
        raise ValueError(
            f"the model {problem}: give some of "
            + " ".join(
                f"{name}=…" if name in config else f"+{name}=…" for name in datamodule.modalities
            )
        )
    tensors = read(given, datamodule)
    batch = Collator(datamodule.fields())([Example(tensors, {}, "the example")])
    with torch.inference_mode():
        answer = task.predict_step(batch, 0)
    answers = answer if isinstance(answer, Mapping) else {"": answer}
    single = {name: found[0] for name, found in answers.items() if found.dim() == 2}
    if not single:
        raise ValueError(
            f"the model of {config.ckpt_path} answers for each element of an input, which makes no "
            "table: test it with evaluate.py"
        )
    Console().print(Text(f"from {', '.join(given)}"))
    for name, values in single.items():
        objective, names = task.heads[name], trained.get("class_names") or []
        if objective.target != "target" or len(names) != len(values):
            names = [str(n) for n in range(len(values))]
        Console().print(_table(values, names, objective, title=name, top=config.top))
    return answer


def _table(
    values: Tensor, names: Sequence[str], objective: Objective, *, title: str, top: int
) -> Table:
    """Values, or the likeliest classes."""
    is_value = isinstance(objective, Regression)
    columns = ("output", "value") if is_value else ("class", "probability")
    table = Table(*columns, title=Text(shown(title)) if title else None)
    order = range(len(names)) if is_value else values.argsort(descending=True)[:top].tolist()
    for index in order:
        table.add_row(Text(shown(names[index])), f"{float(values[index]):.4f}")
    return table


def read(given: Mapping[str, Any], datamodule: pl.LightningDataModule) -> dict[str, Tensor | None]:
    """The tensors of an example, read and transformed as the model was tested.

    Pictures of another size are scaled, whatever training did with them.

    Args:
        given: modality → a file, the text itself, or a list of numbers.
        datamodule: of the model; it need not be set up.
    """
    cells: dict[str, Cell] = dict.fromkeys(datamodule.modalities)
    readers = {name: datamodule.readers[kind_of(name)] for name in given}
    for name, value in given.items():
        reader = readers[name]
        cells[name] = value if isinstance(value, list) else str(value)
        if isinstance(reader, ImageReader) and not reader.resize:
            readers[name] = replace(reader, resize=True)
        if reader.suffixes and kind_of(name) != "text":
            cells[name] = Path(to_absolute_path(str(value)))
            if not cells[name].is_file():
                raise FileNotFoundError(f"there is no {name} file {cells[name]}")
    ids = ["to predict"]
    inputs = decode_all({name: [cell] for name, cell in cells.items()}, readers=readers, ids=ids)
    transform = datamodule.steps(datamodule.transform)
    return {
        name: finish(
            column,
            transform[name],
            reader=readers.get(name),
            option=f"data.transform.{name}",
            ids=ids,
        )[0]
        for name, column in inputs.items()
    }
