"""Pretrained encoders of a run: what they are, and what they want of the data."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning.utilities.rank_zero import rank_zero_info

from datamodules.readers.hf_tokenizer import open_tokenizer
from perceiver.adapters import PretrainedAdapter
from perceiver.adapters.pretrained.hub import find_weights
from runner.literal import literal


def prepare_encoders(config: DictConfig) -> None:
    """Write down what pretrained encoders are, and let the data fit them where they are open.

    Their architecture becomes plain data of the config, from which any checkpoint of the run is
    rebuilt; pictures get the encoder's size, clips its rate and texts its tokenizer, unless the
    config says otherwise.

    Args:
        config: as it was composed; changed in place.

    Raises:
        FileNotFoundError: for weights that are not there.
        ValueError: for an encoder that is not known, or weights that do not fit it.
    """
    for name, adapter, kind in _pretrained(config):
        weights, size = adapter.get("weights"), adapter.get("size")
        found = OmegaConf.to_container(adapter, resolve=True).get("architecture")
        if found is None:
            found = kind.describe(name=adapter.get("name"), weights=weights)
            with open_dict(config):
                adapter.architecture = literal(found)
        if weights is None:
            rank_zero_info(
                f"{name}: an encoder with random weights; model.adapters.{name}.weights names "
                "trained ones"
            )
        if adapter.get("frozen"):  # on purpose
            _spare_cache(config, name, kind.kind)
            warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        wanted = kind.data_options(found | ({"size": list(size)} if size else {}))
        if kind.kind == "text" and weights is not None:
            _own_tokenizer(config, weights)
        options = config.data.get(kind.kind) or {}
        if kind.kind == "image" and "resize" not in options:
            continue  # its pictures have the size that they have: the adapter scales them
        with open_dict(config):
            for option, value in wanted.items():
                if option in options and options[option] is None:
                    options[option] = value


def without_weights(config: dict[str, Any]) -> dict[str, Any]:
    """The plain config of a task with no place of weights: its checkpoint holds them."""
    model = config.get("model")
    adapters = model.get("adapters") if isinstance(model, dict) else None
    if not isinstance(adapters, dict):
        return config
    bare = {
        name: adapter | {"weights": None}
        if isinstance(adapter, dict) and "weights" in adapter
        else adapter
        for name, adapter in adapters.items()
    }
    return config | {"model": model | {"adapters": bare}}


def _pretrained(config: DictConfig) -> Iterator[tuple[str, DictConfig, type[PretrainedAdapter]]]:
    adapters = config.model.get("adapters") or {}
    if "_target_" in adapters:
        raise ValueError(
            f"{adapters._target_} takes the place of one modality's adapter: choose it with "
            "modality@model.adapters.image=… (or audio, or text), not in the list of modalities"
        )
    for name, adapter in adapters.items():
        kind = get_object(adapter._target_) if adapter and "_target_" in adapter else None
        if inspect.isclass(kind) and issubclass(kind, PretrainedAdapter):
            yield name, adapter, kind


def _spare_cache(config: DictConfig, name: str, kind: str) -> None:
    """No augmentation where that is open, no cache where there is one: it would find nothing."""
    augment, adapter = config.data.get("augment") or {}, config.model.adapters[name]
    with open_dict(config):
        if kind in augment and augment[kind] is None and adapter.get("cache_gib"):
            augment[kind] = []
        elif augment.get(kind) or augment.get(name) or config.data.get("mix"):
            adapter.cache_gib = 0.0


def _own_tokenizer(config: DictConfig, weights: str) -> None:
    """Let texts be read with the tokenizer that lies beside the weights: no other gives its ids."""
    options = config.data.get("text")
    if options is None or options.get("tokenizer") not in (None, "bytes", "words"):
        return
    file = find_weights(weights) / "tokenizer.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"there is no {file} to make the encoder's ids with: save_pretrained of its "
            "tokenizer writes it, or set data.text.tokenizer"
        )
    with open_dict(config):
        options.tokenizer = str(file)
        options.vocab_size = open_tokenizer(str(file)).get_vocab_size()
