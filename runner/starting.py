"""A run that starts from another run's model: what fits is taken, the rest begins anew."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning.utilities.rank_zero import rank_zero_info
from torch import Tensor, nn

from runner.checkpoints import read_checkpoint
from runner.literal import literal

# Options that must be as they were for weights to fit; those left open follow the checkpoint's run.
_SIZES = (
    "model.encoder.num_latents",
    "model.encoder.latent_dim",
    "model.encoder.num_layers",
    "data.image.channels",
    "data.image.size",
    "data.audio.sample_rate",
    "data.audio.max_seconds",
    "data.text.max_length",
)
_WORDS = ("tokenizer", "vocabulary", "lowercase", "vocab_size")


def fit_to_start(config: DictConfig) -> None:
    """Let options that are open be those of the run that `init_from` names.

    Args:
        config: as it was composed; changed in place.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is none, or `ckpt_path` or `resume` is given as well, or no training follows.
    """
    path = config.get("init_from")
    if not path:
        if config.get("freeze"):
            raise ValueError("freeze keeps what a run starts from: name that with init_from=FILE")
        return
    if config.get("ckpt_path") or config.get("resume"):
        raise ValueError(
            f"init_from={path} starts a new run from a model; ckpt_path and resume go on with a "
            "run: give one of them"
        )
    if not config.fit:
        raise ValueError("fit=false trains nothing: test a checkpoint with ckpt_path=FILE")
    saved = read_checkpoint(path).get("run_config")
    saved = saved if isinstance(saved, dict) else {}
    with open_dict(config):
        for option in _SIZES:
            _take(config, option, _at(saved, option), kinds=(int, float, list))
        text = _at(saved, "data.text")
        ours = config.data.get("text")
        is_open = ours is not None and ours.get("tokenizer") is None
        if is_open and isinstance(text, dict) and text.get("tokenizer") in ("words", "bytes"):
            for name in _WORDS:
                _take(config, f"data.text.{name}", text.get(name), kinds=(str, bool, int))


def start_from(path: str, model: nn.Module) -> None:
    """Copy the weights of a checkpoint's model that have a place in another, and say which.

    A place is a parameter or buffer of the same name and shape.

    Raises:
        ValueError: nothing fits.
    """
    saved = {
        name.removeprefix("model."): value
        for name, value in read_checkpoint(path)["state_dict"].items()
        if name.startswith("model.")
    }
    ours = model.state_dict()
    fitting = {n: v for n, v in saved.items() if n in ours and ours[n].shape == v.shape}
    if not any(name in dict(model.named_parameters()) for name in fitting):
        raise ValueError(
            f"nothing of init_from={path} fits this model: give model.encoder.latent_dim and the "
            "like as its run had them (config.yaml in its folder)"
        )
    with torch.no_grad():
        for name, value in fitting.items():
            ours[name].copy_(value)
    _tell("started from", path, fitting)
    _tell("new here", "", {name: v for name, v in ours.items() if name not in fitting})
    _tell("not used", path, {name: v for name, v in saved.items() if name not in fitting})


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Train none of the parameters whose names begin with, or match, one of the patterns.

    Args:
        model: whose parameters they are.
        patterns: of names: "encoder", "adapters.text", "*.embedding.*".

    Raises:
        ValueError: a pattern matches nothing, or nothing is left to train.
    """
    named = dict(model.named_parameters())
    for pattern in patterns:
        found = [n for n in named if n.startswith(f"{pattern}.") or fnmatchcase(n, pattern)]
        if not found:
            raise ValueError(
                f"freeze={pattern!r} matches no parameter of the model: its parts are "
                f"{', '.join(_parts(named))}"
            )
        for name in found:
            named[name].requires_grad = False
    kept = {name: value for name, value in named.items() if value.requires_grad}
    if not kept:
        raise ValueError(f"freeze={list(patterns)} leaves nothing to train")
    if patterns:
        _tell("trained", "", kept)


def _at(config: Mapping[str, Any], option: str) -> Any:
    value: Any = config
    for name in option.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _take(config: DictConfig, option: str, value: Any, *, kinds: tuple[type, ...]) -> None:
    group, _, name = option.rpartition(".")
    node = OmegaConf.select(config, group)
    is_plain = isinstance(value, kinds) and (
        not isinstance(value, list) or all(type(item) in (int, float) for item in value)
    )
    if OmegaConf.is_dict(node) and is_plain and node.get(name) is None:
        node[name] = literal(value)


def _parts(names: Iterable[str]) -> list[str]:
    """The parts of a model that names are of: its modules, and each of the adapters."""
    found = (name.split(".") for name in names)
    return list(dict.fromkeys(".".join(n[: 2 if n[0] == "adapters" else 1]) for n in found))


def _tell(what: str, where: str, values: Mapping[str, Tensor]) -> None:
    counts: defaultdict[str, int] = defaultdict(int)
    for name, value in values.items():
        counts[_parts([name])[0]] += value.numel()
    if counts:
        told = ", ".join(f"{part} {count:,}" for part, count in counts.items())
        rank_zero_info(f"{what:10} {f'{where}: ' if where else ''}{told}")
