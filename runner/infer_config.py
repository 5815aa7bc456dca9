"""What a data set turns out to be, written into the config before a model is built from it."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning.utilities.rank_zero import rank_zero_info

from datamodules.core.datamodule import MultimodalDataModule
from datamodules.readers import kind_of
from runner.processes import prepare_once_a_node

_MAX_STEPS = 10_000  # some ten minutes of a laptop
_TASKS = Path(__file__).parents[1] / "conf" / "task"
_FITTING = {"a class": "single_label", "labels": "multi_label", "values": "regression"}


def wanted_targets(config: DictConfig) -> str | None:
    """What the task needs the data set's target to be; None = it asks for nothing known of it."""
    task = config.task
    for objective in (task.objectives.values() if task.get("objectives") else [task.objective]):
        kind = getattr(get_class(objective._target_), "targets", None)
        if kind is not None and objective.get("target", "target") == "target":
            return kind
    return None


def build_data(config: DictConfig) -> pl.LightningDataModule:
    """The data module, set up; the options that it inferred are written into the config.

    The model gets an adapter for each modality of the data: several of a kind (two cameras) each
    one like the kind's, and none that nothing would be read by. The task becomes one that trains
    on what the data set's target is.
    """
    _ask_for_targets(config)
    # Transforms may refer to what is inferred: a crop to the size of the pictures.
    late: list[str] = []
    if issubclass(get_class(config.data._target_), MultimodalDataModule):
        late = [n for n in ("augment", "transform", "mix") if config.data.get(n) is not None]
    datamodule = instantiate(config.data, **dict.fromkeys(late))
    prepare_once_a_node(datamodule)
    datamodule.setup()
    for line in datamodule.summary():
        rank_zero_info(line)
    if hasattr(datamodule, "inferred"):
        with open_dict(config):
            modalities = config.data.modalities
            for name, value in datamodule.inferred().items():
                config.data[name] = value
            if modalities is None:
                complete_adapters(config)
                complete_task(config, datamodule)
                limit_epochs(config, len(datamodule.splits["train"]))
    if late:
        datamodule.use(**{name: instantiate(config.data[name], _convert_="all") for name in late})
    return datamodule


def _ask_for_targets(config: DictConfig) -> None:
    """A task that was chosen says how to read the target; the default one leaves it open."""
    if "targets" in config.data and config.data.targets is None:
        chosen = wanted_targets(config)
        if chosen in ("labels", "values"):
            config.data.targets = chosen


def complete_adapters(config: DictConfig) -> None:
    """One adapter for each modality of the data, made like the adapter of its kind."""
    given = config.model.get("adapters")
    if given is None:
        return
    adapters: dict[str, Any] = {}
    for name in config.data.modalities:
        choice = given._get_node(name if name in given else kind_of(name))
        if choice is None:
            raise ValueError(
                f"the data has the modality {name}, for which model.adapters has no "
                f"{kind_of(name)}: choose 'modality@model.adapters=[…]' with one, or name the "
                "columns to read in data.columns"
            )
        # Unresolved: references to the data's options stay references.
        adapters[name] = OmegaConf.to_container(copy.deepcopy(choice), resolve=False)
    config.model.adapters = adapters


def complete_task(config: DictConfig, datamodule: pl.LightningDataModule) -> None:
    """The task that trains on the data set's targets, with the options that it shares."""
    chosen = wanted_targets(config)
    if chosen not in (None, datamodule.targets):
        fitting = OmegaConf.load(_TASKS / f"{_FITTING[datamodule.targets]}.yaml")
        shared = set(fitting) & set(config.task) - {"objective", "_target_"}
        config.task = OmegaConf.merge(fitting, {name: config.task[name] for name in shared})
    if chosen is not None and datamodule.targets == "values" and config.task.get("objective"):
        objective, values = config.task.objective, datamodule.splits["train"].source.targets
        objective.out_dim = values.shape[1]
        if objective.mean is None and objective.std is None:
            std, mean = torch.std_mean(values.double(), dim=0, correction=0)
            objective.mean = mean.tolist()
            objective.std = torch.where(std > 0, std, 1.0).tolist()
    if len(datamodule.modalities) > 6 and config.task.test_subsets == "all":
        config.task.test_subsets = "single"  # 2^7 subsets would take longer than the training


def limit_epochs(config: DictConfig, num_examples: int) -> None:
    """A long table gets fewer epochs, unless the command line says how long to train."""
    if not HydraConfig.initialized():
        return
    said = [override.lstrip("+~") for override in HydraConfig.get().overrides.task]
    if any(override.startswith(("trainer", "experiment", "debug")) for override in said):
        return
    epochs = max(1, round(_MAX_STEPS / math.ceil(num_examples / config.data.batch_size)))
    if epochs < config.trainer.max_epochs:
        config.trainer.max_epochs = epochs
        rank_zero_info(f"{epochs} epochs make {_MAX_STEPS:,} steps (trainer.max_epochs)")
