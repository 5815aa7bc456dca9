"""Encoders of transformers from plain data, and from a folder of the hub's format."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from perceiver.adapters.pretrained.hub import needs
from perceiver.adapters.pretrained.plain import first_line, is_plain, read_json

# A clip or sentence may be too short for training tricks of these, and processes that share a
# training wait for gradients of layers that are skipped.
_OFF = {
    "apply_spec_augment": False,
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
    "layerdrop": 0.0,
    "encoder_layerdrop": 0.0,
}


def read_config(folder: Path, *, types: Collection[str], what: str) -> dict[str, Any]:
    """The architecture that a folder's config.json describes.

    Returns:
        `model_type`, and the `options` of that type's own config: nothing that the library's base
        class would act on, such as code of the folder's.

    Raises:
        FileNotFoundError: there is no config.json.
        ValueError: it is damaged, or of another type of model.
    """
    file = (folder if folder.is_dir() else folder.parent) / "config.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"weights={folder}: there is no {file}, which says what they are of"
        )
    found = read_json(file)
    known = _config_class(found.get("model_type"), types=types, what=what)
    try:
        told = known.from_dict({n: v for n, v in found.items() if n != "auto_map"}).to_dict()
    except Exception as error:  # the library has errors of its own for each misfit
        raise ValueError(
            f"{file} describes no {found['model_type']}: {first_line(error)}"
        ) from error
    options = {name: told[name] for name in _own(known) if told.get(name) is not None}
    return {"model_type": found["model_type"], "options": json.loads(json.dumps(options))}


def make_encoder(
    architecture: Mapping[str, Any], source: Path | None, *, types: Collection[str], what: str
) -> nn.Module:
    """The model of an architecture, with a folder's weights or random ones.

    Raises:
        ValueError: it is no architecture of these types, or the weights are of another one.
    """
    known = _config_class(architecture.get("model_type"), types=types, what=what)
    options = architecture.get("options", {})
    if not isinstance(options, Mapping):
        raise ValueError(f"the architecture's options are {options!r:.100}, expected a mapping")
    own = _own(known)
    for name, value in options.items():
        if name not in own or not is_plain(value, words=True):
            raise ValueError(f"{name}={value!r:.100} is no option of {architecture['model_type']}")
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    try:
        config = known(**dict(options) | {n: v for n, v in _OFF.items() if n in own})
        model: Any = MODEL_MAPPING[known]
        extra = {}
        if "add_pooling_layer" in inspect.signature(model).parameters:
            extra["add_pooling_layer"] = False
        if source is None:
            return model(config, **extra)
        return _loaded(model, config, source if source.is_dir() else source.parent, extra)
    except ValueError:
        raise
    except Exception as error:
        of = f" of {source}" if source else ""
        raise ValueError(
            f"no {architecture['model_type']}{of} can be made: {first_line(error)}"
        ) from error


def _loaded(model: Any, config: Any, folder: Path, extra: Mapping[str, Any]) -> nn.Module:
    with _quietly():
        encoder, info = model.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            weights_only=True,
            dtype=torch.float32,
            output_loading_info=True,
            **extra,
        )
    if lacking := sorted(
        set(info["missing_keys"]) | set(map(str, info.get("mismatched_keys", ())))
    ):
        raise ValueError(f"the weights in {folder} are of another model: they lack {lacking[0]}")
    return encoder


def _config_class(model_type: Any, *, types: Collection[str], what: str) -> Any:
    if not isinstance(model_type, str) or model_type not in types:
        raise ValueError(
            f"model_type={model_type!r:.100} is no {what} encoder that is known here: "
            f"{', '.join(sorted(types))}"
        )
    try:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    except ImportError as error:
        raise needs("transformers", by=f"a {what} encoder of transformers") from error
    return CONFIG_MAPPING[model_type]


def _own(config: Any) -> set[str]:
    """The options that a type of model adds to those of every config."""
    from transformers import PretrainedConfig

    return {f.name for f in fields(config)} - {f.name for f in fields(PretrainedConfig)}


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the library's progress bars and reports on heads that are left over."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
