"""Configs as Hydra composes them: of runs, and of choices of conf/ on their own.

Composing takes a quarter of a second, so that each choice of files is composed once.
"""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

CONF = Path(__file__).parents[1] / "conf"


def compose_config(name: str = "config", overrides: tuple[str, ...] = ()) -> DictConfig:
    """What `compose(name, overrides)` gives: values change a copy, as Hydra itself changes them."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    files = [o for o in parsed if (CONF / o.key_or_group).is_dir()]
    config = copy.deepcopy(_composed(name, tuple(o.input_line for o in files)))
    ConfigLoaderImpl._apply_overrides_to_config([o for o in parsed if o not in files], config)
    return config


def choices(group: str) -> list[str]:
    """The names in a group, sorted; what stands in its folder `_base` is none of them."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def attention_config(name: str) -> DictConfig:
    """A preset of conf/attention."""
    return OmegaConf.create(_presets()[name])


def data_config(name: str) -> DictConfig:
    """A choice of conf/data; what it says of other groups is left out."""
    data = _composed("config", (f"data={name}",)).data
    return OmegaConf.create(OmegaConf.to_container(data, resolve=False))


@cache
def _presets() -> dict[str, Any]:
    every = tuple(f"+attention@{name}={name}" for name in choices("attention"))
    return OmegaConf.to_container(_composed(None, every), resolve=False)


@cache
def _composed(name: str | None, overrides: tuple[str, ...]) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, overrides=list(overrides))
