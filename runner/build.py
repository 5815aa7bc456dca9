"""From a composed config to the data module, the final config and the task."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig
from pytorch_lightning.utilities.rank_zero import rank_zero_info

from datamodules.core.datamodule import MultimodalDataModule
from datamodules.core.facts import DataFacts
from perceiver.names import shown
from perceiver.tasks import Task
from perceiver.types import TargetKind
from runner.checks import check_final
from runner.inputs import describe_inputs
from runner.processes import prepare_once_a_node
from runner.recipe import describe
from runner.resolve import plain_config, resolve, wanted_targets

_LINE = 4000  # characters of a line about the data
_TRANSFORMS = ("augment", "transform", "mix")  # may refer to facts: a crop to the pictures' size


def build_data(config: DictConfig) -> tuple[pl.LightningDataModule, DictConfig]:
    """The data module, set up, and the config as its facts resolve it.

    Raises:
        ValueError: the data cannot be read, or the config does not fit them.
    """
    datamodule = open_data(config)
    facts = datamodule.facts()
    for line in datamodule.summary():
        rank_zero_info(shown(line, _LINE))
    final = resolve(config, facts)
    for line in (*describe_inputs(final, config, facts), *describe(final, config)):
        rank_zero_info(shown(line, _LINE))
    check_final(final, facts)
    if isinstance(datamodule, MultimodalDataModule):
        given = {name: final.data.get(name) for name in _TRANSFORMS}
        built = {n: instantiate(node, _convert_="all") for n, node in given.items() if node}
        datamodule.set_transforms(**built)
    datamodule.setup()
    return datamodule, final


def open_data(config: DictConfig) -> pl.LightningDataModule:
    """The data module without its transforms; what it reads is there."""
    options: dict[str, Any] = {}
    if issubclass(get_class(config.data._target_), MultimodalDataModule):
        options = {name: None for name in _TRANSFORMS if name in config.data}
    # A task that was chosen says how to read the target; the default one leaves it open.
    chosen = wanted_targets(config)
    if config.data.get("targets", "") is None and chosen in (TargetKind.LABELS, TargetKind.VALUES):
        options["targets"] = TargetKind(chosen).option
    datamodule = instantiate(config.data, **options)
    prepare_once_a_node(datamodule)
    return datamodule


def build_task(final: DictConfig, facts: DataFacts) -> Task:
    """The task with its model; it has the run's config, for its checkpoints."""
    task: Task = instantiate(final.task, _convert_="all")
    task.run_config = plain_config(final, facts)
    return task
