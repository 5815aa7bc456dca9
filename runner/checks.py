"""Whether the parts of a config fit together: all that can be, before any data is opened."""

from __future__ import annotations

import os
import warnings
from itertools import product

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationKeyError
from torch import nn

from datamodules.core.facts import DataFacts
from datamodules.readers import kind_of
from perceiver.types import TargetKind
from runner.options import check_options
from runner.recipe import provisional
from runner.resolve import wanted_targets
from runner.speed import check_speed

_PARTS = ("fusion", "encoder", "cross_attention", "latent_attention", "decoder")


def check_config(config: DictConfig) -> None:
    """Refuse combinations that cannot work, naming both sides and the override that mends it.

    What the data alone say is left to `check_final`.

    Raises:
        ValueError: for the first misfit found.
    """
    config = provisional(config)
    _check_modalities(config)
    _check_targets(config)
    _check_interpolations(config)
    check_options(config)
    _check_processes(config)
    _check_precision(config)
    _check_validation(config)
    check_speed(config)


def check_final(final: DictConfig, facts: DataFacts) -> None:
    """Refuse a final config that does not fit what its data set turned out to be.

    Raises:
        ValueError: for a task that trains on other targets, and for options that refer to what
            was found and cannot be that.
    """
    _check_same_targets(final, facts.targets)
    check_options(final)


def check_model(config: DictConfig) -> None:
    """Refuse a model that cannot be built, attention that cannot serve in its place for one.

    The model itself is built, on a device without memory, so that the rules are its own. Where
    its adapters wait for what the data alone knows (the size of pictures, say), everything else is
    built for byte arrays that any fit cross-attention can read; the rest is asked when the facts
    are there, and so is what a part of one's own cannot be built without memory for.

    Raises:
        ValueError: what the model's parts refuse, or Hydra's error around it.
    """
    try:
        _build_without_memory(provisional(config))
    except Exception as error:
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        # What torch raises where numbers are asked of a tensor without memory; nothing else waits.
        if isinstance(root, RuntimeError | TypeError) and "meta" in str(root).lower():
            return
        if isinstance(error, TypeError):  # an option that is none
            raise ValueError(f"the model cannot be built: {error}") from error
        raise


def _build_without_memory(config: DictConfig) -> None:
    if config.data.get("num_classes", 0) is None:  # no matter here
        config.data.num_classes = 1
    adapters = config.model.get("adapters")
    for adapter in (adapters or {}).values():
        if "weights" in adapter:
            adapter.weights = None  # they are read when the model is built to stay
    if adapters is None:
        with torch.device("meta"):
            instantiate(config.model, _convert_="all")
    elif config.data.get("modalities", ()) is None or _waits(adapters):
        if set(_PARTS) <= set(config.model):  # else a model of one's own
            _check_without_data(config)
    else:
        built = {name: _build_adapter(adapter) for name, adapter in adapters.items()}
        with open_dict(config):
            del config.model.adapters
            config.model._partial_ = True
        with torch.device("meta"):
            instantiate(config.model, _convert_="all")(adapters=built)


def _build_adapter(config: DictConfig) -> nn.Module:
    with warnings.catch_warnings(action="ignore"):  # they come when the model is built to stay
        try:
            with torch.device("meta"):
                return instantiate(config, _convert_="all")
        except InstantiationException:  # a table of mel filters cannot do without memory
            return instantiate(config, _convert_="all")


def _waits(node: DictConfig | ListConfig) -> bool:
    """Whether something refers to a fact that is not known yet."""
    for key in node if isinstance(node, DictConfig) else range(len(node)):
        if node[key] is None and OmegaConf.is_interpolation(node, key):
            return True
        if OmegaConf.is_config(node[key]) and _waits(node[key]):
            return True
    return False


def _check_without_data(config: DictConfig) -> None:
    """Refuse what no byte array would make fit: no width of it and no length."""
    names = [name for name in _PARTS if name != "decoder" or not _waits(config.model.decoder)]
    with torch.device("meta"):
        parts = {name: instantiate(config.model[name], _convert_="all") for name in names}
        attention = {name: parts[name] for name in ("cross_attention", "latent_attention")}
        latent_dim, latents = config.model.encoder.latent_dim, config.model.encoder.num_latents
        widths = {parts["fusion"](channels={"any": width}).channels for width in (1, 2)}
        if len(widths) > 1:  # as wide as the queries, or a width that the heads divide
            widths = {latent_dim, 8 * latent_dim * config.model.cross_attention.get("num_heads", 1)}
        if "decoder" in parts:
            parts["decoder"](latent_dim=latent_dim).check_lengths(latents)
        refusal = None
        for width, tokens in product(sorted(widths), (1, latents)):
            try:
                encoder = parts["encoder"](input_dim=width, **attention)
                encoder.check_lengths(tokens)
                return
            except ValueError as error:
                refusal = error
        raise refusal


def _check_modalities(config: DictConfig) -> None:
    shows_sequences = getattr(get_class(config.data._target_), "available_modalities", None) == ()
    if shows_sequences != ("adapters" not in config.model):
        wants, gives = "modalities", "sequences without modalities"
        fitting = "one for sequences (model=lstm or ntm)"
        if not shows_sequences:
            wants, gives, fitting = "plain sequences", "modalities", "model=perceiver"
        raise ValueError(
            f"the model {config.model._target_} reads {wants}, but the data set "
            f"{config.data._target_} gives {gives}: choose {fitting}, or another data set"
        )
    if shows_sequences or config.data.get("modalities", ()) is None:  # not known before it is read
        return
    reads = sorted(config.model.adapters or {})
    offers = list(getattr(get_class(config.data._target_), "available_modalities", reads))
    extra = [name for name in reads if kind_of(name) not in offers]
    fitting = ",".join(name for name in reads if kind_of(name) in offers) or ",".join(offers)
    if extra or not reads:
        raise ValueError(
            f"the model reads {', '.join(reads) or 'no modality'}, but the data set offers "
            f"{', '.join(offers)} alone: choose 'modality@model.adapters=[{fitting}]'"
        )
    given = sorted(config.data.modalities)
    if given != reads:
        raise ValueError(
            f"the data gives {', '.join(given)}, but the model reads {', '.join(reads)}: choose "
            f"'modality@model.adapters=[{','.join(given)}]' and leave data.modalities alone"
        )


def _check_targets(config: DictConfig) -> None:
    """Of what is known of the targets before the data are read."""
    given = getattr(get_class(config.data._target_), "targets", None)
    if "targets" in config.data:
        given = TargetKind.options().get(config.data.targets)
        is_open = config.data.get("modalities", ()) is None
        if is_open and wanted_targets(config) == TargetKind.CLASS:
            return  # the default task, in whose place `resolve` puts one that fits
    if given is not None:
        _check_same_targets(config, given)


def _check_same_targets(config: DictConfig, given: str) -> None:
    wanted = wanted_targets(config)
    if wanted is not None and given != wanted:
        raise ValueError(
            f"the task trains on {wanted} of an example, but the data set gives {given}: "
            f"choose task={TargetKind(given).task}"
        )


def _check_interpolations(config: DictConfig) -> None:
    try:
        OmegaConf.to_container(config, resolve=True)
    except InterpolationKeyError as error:
        raise ValueError(
            f"{error.full_key} refers to something that the config does not have: "
            f"{str(error).splitlines()[0]}; the chosen data, model and task do not fit together"
        ) from error


def _check_processes(config: DictConfig) -> None:
    """A launcher's processes that do not know of each other would train apart in one folder."""
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    devices = config.trainer.devices
    count = len(devices) if OmegaConf.is_list(devices) else devices
    if launched > 1 and str(count) == "1" and config.trainer.num_nodes == 1:
        raise ValueError(
            f"{launched} processes were launched but trainer.devices={devices} on one node: "
            f"set trainer=ddp trainer.devices={launched}"
        )


def _check_validation(config: DictConfig) -> None:
    if config.trainer.get("limit_val_batches") == 0:
        raise ValueError(
            "trainer.limit_val_batches=0 leaves nothing to choose a checkpoint by: set at least 1, "
            "or validate seldom with trainer.check_val_every_n_epoch=N"
        )


def _check_precision(config: DictConfig) -> None:
    clips, fused = config.trainer.gradient_clip_val, config.optimizer.get("fused")
    if str(config.trainer.precision) == "16-mixed" and clips and fused:
        raise ValueError(
            "trainer.precision=16-mixed cannot clip the gradients of a fused optimiser, which "
            "unscales them itself: set optimizer.fused=false, or trainer.precision=bf16-mixed"
        )
    if fused and config.optimizer.get("foreach"):
        raise ValueError(
            "optimizer.fused=true and optimizer.foreach=true exclude each other: set one to false"
        )
