"""Choices of conf/ on their own, as Hydra composes them from their bases."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

CONF = Path(__file__).parents[1] / "conf"


def choices(group: str) -> list[str]:
    """The names in a group, sorted; what stands in its folder `_base` is none of them."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def attention_config(name: str) -> DictConfig:
    """A preset of conf/attention."""
    return OmegaConf.create(_composed(f"attention/{name}", None)["attention"])


def data_config(name: str) -> DictConfig:
    """A choice of conf/data; what it says of other groups is left out."""
    return OmegaConf.create(_composed("config", f"data={name}")["data"])


@cache
def _composed(name: str, override: str | None) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(name, overrides=[override] if override else [])
    return OmegaConf.to_container(config, resolve=False)
