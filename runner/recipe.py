"""How fast, how long and with which sizes a run trains: options left open, chosen from its data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from datamodules.core.facts import DataFacts
from datamodules.readers import kind_of
from datamodules.readers.text import BYTES
from perceiver.types import TargetKind

MAX_STEPS = 10_000  # some ten minutes of a laptop
_FEW = 1000  # examples, from which on a table is not a small one
_LEAST_STEPS = 300  # of few examples, in up to as many epochs as the longest recipe has
_BUDGETS = {"fast": 0.3, "good": 1.0, "best": 3.0}  # → how many of the epochs
OPTIONS = (  # that may be null in a config
    "optimizer.lr",
    "optimizer.weight_decay",
    "model.encoder.num_latents",
    "model.encoder.latent_dim",
    "model.encoder.num_layers",
    "model.encoder.dropout",
    "model.modality_dropout.p",
    "model.adapters.array.encoding",
    "trainer.max_epochs",
    "callbacks.early_stopping.patience",
)
_PATIENCE = 0.3  # share of the epochs without a better one after which a run stops


@dataclass(frozen=True)
class Recipe:
    """What learns one kind of data well.

    Args:
        lr: the highest learning rate.
        epochs: passes over a small data set.
        dropout: of the encoder.
        weight_decay: of weights that are decayed.
        num_latents: of the encoder, as the two that follow.
        latent_dim: their width.
        num_layers: of self-attention.
        encoding: of the numbers of a table; few rows are too few to learn what each bin says.
    """

    lr: float = 2e-3
    epochs: int = 80
    dropout: float = 0.0
    weight_decay: float = 0.05
    num_latents: int = 24
    latent_dim: int = 96
    num_layers: int = 3
    encoding: str = "piecewise"


# Found by validation: docs/learning.md shows what each reaches.
RECIPES = {
    "words": Recipe(lr=5e-4, epochs=4, dropout=0.2, num_latents=16, latent_dim=64, num_layers=2),
    "image": Recipe(epochs=40, dropout=0.1, num_latents=8, latent_dim=128, num_layers=2),
    "audio": Recipe(epochs=60, dropout=0.1),
    "columns": Recipe(epochs=40, dropout=0.1),
    "few columns": Recipe(  # a table of few rows
        lr=1e-3,
        epochs=20,
        dropout=0.2,
        num_latents=8,
        latent_dim=32,
        num_layers=1,
        encoding="linear",
    ),
}
_COLUMNS = {"array": "columns", "category": "columns", "date": "columns"}


def recipe_for(
    modalities: Iterable[str], *, has_words: bool = False, examples: int = _FEW
) -> Recipe:
    """The recipe of what the modalities are; of several kinds, one that learns them together.

    Args:
        modalities: of the data set.
        has_words: whether its texts are read as words, or as a tokenizer's ids, not as bytes.
        examples: to train on.
    """
    kinds = {"words" if kind == "text" and has_words else kind for kind in _kinds(modalities)}
    if kinds == {"columns"} and examples < _FEW:
        return RECIPES["few columns"]
    return RECIPES.get(kinds.pop(), Recipe()) if len(kinds) == 1 else Recipe()


def _kinds(modalities: Iterable[str]) -> set[str]:
    """The kinds of modalities; the columns of a table are one."""
    return {_COLUMNS.get(kind_of(name), kind_of(name)) for name in modalities}


def choose(config: DictConfig, facts: DataFacts) -> dict[str, Any]:
    """Option → value, for every option of the recipe that the config leaves null.

    Args:
        config: with the data set's options as they were found.
        facts: of the data set.

    Raises:
        ValueError: for a budget that is none.
    """
    budget = config.get("budget", "good")
    if budget not in _BUDGETS:
        raise ValueError(f"budget={budget!r}, expected {', '.join(_BUDGETS)}")
    names = list(config.data.get("modalities") or ())
    tokenizer = (config.data.get("text") or {}).get("tokenizer")
    recipe = recipe_for(
        names,
        has_words=tokenizer not in (None, BYTES),
        examples=facts.num_examples.get("train", _FEW),
    )
    steps_per_epoch = _steps_per_epoch(config, facts)
    epochs = recipe.epochs
    if facts.num_examples:
        epochs = max(epochs, min(Recipe.epochs, round(_LEAST_STEPS / steps_per_epoch)))
        epochs = min(epochs, round(MAX_STEPS / steps_per_epoch))
    epochs = max(1, round(epochs * _BUDGETS[budget]))
    values = {
        "optimizer.lr": recipe.lr,
        "optimizer.weight_decay": recipe.weight_decay,
        "model.encoder.num_latents": recipe.num_latents,
        "model.encoder.latent_dim": recipe.latent_dim,
        "model.encoder.num_layers": recipe.num_layers,
        "model.encoder.dropout": recipe.dropout,
        "model.modality_dropout.p": 0.5 if len(_kinds(names)) > 1 else 0.0,
        "model.adapters.array.encoding": recipe.encoding,
        "trainer.max_epochs": epochs,
    }
    given = OmegaConf.select(config, "trainer.max_epochs")
    epochs = epochs if given is None or given < 1 else given
    seldom = config.trainer.get("check_val_every_n_epoch") or 1
    validations = max(1, round(epochs / seldom))
    # A recurrent model's loss stays level for long before it falls.
    patience = max(5, round(_PATIENCE * validations)) if names else validations
    values["callbacks.early_stopping.patience"] = patience
    return {path: value for path, value in values.items() if _is_open(config, path)}


def provisional(config: DictConfig) -> DictConfig:
    """A copy whose open options have values of the right kind, to check before the data is read."""
    return _with(config, choose(config, DataFacts(targets=TargetKind.CLASS)))


def settle(config: DictConfig, facts: DataFacts) -> DictConfig:
    """A copy whose open options have the values that the data ask for."""
    return _with(config, choose(config, facts))


def describe(final: DictConfig, given: DictConfig) -> list[str]:
    """What was chosen, as overrides: a line for people, if anything was."""
    chosen = [path for path in OPTIONS if _is_open(given, path) and _has(final, path)]
    found = {path: OmegaConf.select(final, path) for path in chosen}
    values = [f"{n}={v if isinstance(v, str) else f'{v:g}'}" for n, v in found.items()]
    return [f"chosen     {' '.join(values)}"] if values else []


def _steps_per_epoch(config: DictConfig, facts: DataFacts) -> int:
    examples = facts.num_examples.get("train", 0)
    batches = config.data.get("batches") or {}
    if not examples:
        return batches.get("train", 1)
    accumulated = config.trainer.get("accumulate_grad_batches") or 1
    return max(1, math.ceil(examples / ((config.data.get("batch_size") or 64) * accumulated)))


def _has(config: DictConfig, path: str) -> bool:
    return OmegaConf.select(config, path) is not None


def _is_open(config: DictConfig, path: str) -> bool:
    group, _, name = path.rpartition(".")
    node = OmegaConf.select(config, group)
    return OmegaConf.is_dict(node) and name in node and node[name] is None


def _with(config: DictConfig, values: Mapping[str, Any]) -> DictConfig:
    filled = config.copy()
    for path, value in values.items():
        OmegaConf.update(filled, path, value, force_add=True)
    return filled
