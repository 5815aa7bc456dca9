"""The final config of a run: the composed one with what its data set turned out to be."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf, open_dict

from datamodules.core.facts import DataFacts
from datamodules.readers import READERS, kind_of
from datamodules.readers.text import BYTES
from perceiver.types import TargetKind
from runner.inputs import settle_inputs
from runner.literal import can_be_literal, literal
from runner.recipe import settle

# Of an adapter of words, which are many and mostly rare: chosen by validation on SST-2 and AG News.
_WORDS = {"init_std": 0.002, "token_dropout": 0.2, "dropout": 0.5}
_TASKS = Path(__file__).parents[1] / "conf" / "task"


def resolve(config: DictConfig, facts: DataFacts) -> DictConfig:
    """The config that model, task and transforms are built from; the one given stays as it is.

    The options of the data set become what was found. Where `data.modalities` was left open, so is
    what hangs on it: the model gets an adapter for each modality of the data, several of a kind
    (two cameras) each one like the kind's, and none that nothing would be read by; the task becomes
    one that trains on what the data set's target is. Options of the recipe that were left open
    are chosen (`runner.recipe`).

    Args:
        config: as Hydra composed it.
        facts: of its data set.

    Raises:
        ValueError: the model has no adapter for a modality of the data, or an option of classes is
            set where the target is none.
    """
    final = copy.deepcopy(config)
    is_open = config.data.get("modalities", ()) is None
    with open_dict(final):
        for name, value in facts.options.items():
            if can_be_literal(value):  # what cannot is in the checkpoint alone
                final.data[name] = literal(value)
            elif name in READERS:  # the model reads sizes of what has a strange name
                known = {key: found for key, found in value.items() if can_be_literal(found)}
                final.data[name] = OmegaConf.merge(final.data[name], literal(known))
        if is_open:
            if final.model.get("adapters") is not None:
                final.model.adapters = _adapters(final)
            _check_class_options(final, facts)
            _fit_task(final, facts)
        _balance(final, facts)
        _fit_embeddings(final)
        settle_inputs(final, facts)
    return settle(final, facts)


def plain_config(final: DictConfig, facts: DataFacts) -> dict[str, Any]:
    """The run's config as plain data, which goes into its checkpoints: nothing refers to anything.

    Names from data are as they were found, also those that a config cannot hold.
    """
    plain = OmegaConf.to_container(final, resolve=True)
    plain["data"] |= facts.options
    return plain | {"class_names": list(facts.class_names)}


def shown_config(plain: dict[str, Any]) -> dict[str, Any]:
    """A run's config for people: without the words of its texts, which its checkpoints hold."""
    data = plain["data"]
    if not isinstance(data.get("text"), dict) or not data["text"].get("vocabulary"):
        return plain
    return plain | {"data": data | {"text": data["text"] | {"vocabulary": None}}}


def wanted_targets(config: DictConfig) -> TargetKind | None:
    """What the task needs the data set's target to be; None = it asks for nothing known of it."""
    task = config.task
    for objective in task.objectives.values() if task.get("objectives") else [task.objective]:
        kind = getattr(get_class(objective._target_), "targets", None)
        if kind is not None and objective.get("target", "target") == "target":
            return kind
    return None


def _adapters(config: DictConfig) -> dict[str, Any]:
    """One adapter for each modality of the data, made like the adapter of its kind."""
    given, adapters = config.model.adapters, {}
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
    return adapters


def _fit_embeddings(config: DictConfig) -> None:
    """How embeddings of words begin and what is dropped of them, where that was left open."""
    text = config.data.get("text")
    if not text or text.get("tokenizer") in (None, BYTES):
        return
    for adapter in (config.model.get("adapters") or {}).values():
        for name, value in _WORDS.items():
            if adapter.get(name, 0) is None:
                adapter[name] = value


def _fit_task(config: DictConfig, facts: DataFacts) -> None:
    """The task that trains on the data set's targets, with the options that it shares."""
    chosen = wanted_targets(config)
    if chosen not in (None, facts.targets):
        fitting = OmegaConf.load(_TASKS / f"{TargetKind(facts.targets).task}.yaml")
        shared = set(fitting) & set(config.task) - {"objective", "_target_"}
        kept = OmegaConf.to_container(config.task, resolve=False)  # ${model} is still the model
        config.task = OmegaConf.merge(fitting, {name: kept[name] for name in shared})
    is_regression = chosen is not None and facts.targets == TargetKind.VALUES
    if is_regression and config.task.get("objective"):
        objective = config.task.objective
        objective.out_dim = len(facts.class_names)
        if objective.mean is None and objective.std is None:
            objective.mean, objective.std = list(facts.target_mean), list(facts.target_std)
    if len(config.data.modalities) > 6 and config.task.test_subsets == "all":
        config.task.test_subsets = "single"  # 2^7 subsets would take longer than the training


def _check_class_options(config: DictConfig, facts: DataFacts) -> None:
    """Refuses options that would be lost with the objective that the data do not fit."""
    objective = config.task.get("objective") or {}
    for name in ("class_weights", "focal_gamma"):
        if objective.get(name) and facts.targets != TargetKind.CLASS:
            raise ValueError(
                f"task.objective.{name}={objective[name]} is of classes, but the target is "
                f"{facts.targets}: leave it out"
            )


def _balance(config: DictConfig, facts: DataFacts) -> None:
    """Weights in inverse proportion to the training examples of each class, where asked for.

    Their mean over the training examples is 1. A class without examples gets 1.
    """
    several = config.task.get("objectives")
    for objective in several.values() if several else [config.task.get("objective")]:
        counts = facts.class_counts
        if objective and objective.get("class_weights") == "balanced" and counts is not None:
            share = sum(counts) / sum(count > 0 for count in counts)
            objective.class_weights = [share / count if count else 1.0 for count in counts]
