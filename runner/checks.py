"""Whether the parts of a composed config fit together, asked before anything is built."""

from __future__ import annotations

import os

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError

from datamodules.manifest import TARGETS
from datamodules.readers import kind_of


def check_config(config: DictConfig) -> None:
    """Refuse combinations that cannot work, naming both sides and the override that mends it.

    Raises:
        ValueError: for the first misfit found.
    """
    _check_modalities(config)
    _check_targets(config)
    _check_interpolations(config)
    _check_processes(config)
    _check_precision(config)


def _check_modalities(config: DictConfig) -> None:
    shows_sequences = getattr(get_class(config.data._target_), "offers", None) == ()
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
    offers = list(getattr(get_class(config.data._target_), "offers", reads))
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
    wanted = getattr(get_class(config.task.objective._target_), "targets", None)
    given = getattr(get_class(config.data._target_), "targets", wanted)
    if "targets" in config.data:  # the data's own are not known before it is read
        given = wanted if config.data.targets is None else TARGETS.get(config.data.targets, wanted)
        if config.data.get("modalities", ()) is None and wanted == "a class":
            return  # the default task, which `complete_task` replaces by one that fits
    if wanted is not None and given != wanted:
        fitting = {"a class": "single_label", "labels": "multi_label", "values": "regression"}
        fitting["a sequence"] = "sequence"
        raise ValueError(
            f"the task trains on {wanted} of an example, but the data set gives {given}: "
            f"choose task={fitting[given]}"
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


def _check_precision(config: DictConfig) -> None:
    clips, fused = config.trainer.gradient_clip_val, config.optimizer.get("fused")
    if str(config.trainer.precision) == "16-mixed" and clips and fused:
        raise ValueError(
            "trainer.precision=16-mixed cannot clip the gradients of a fused optimiser, which "
            "unscales them itself: set optimizer.fused=false, or trainer.precision=bf16-mixed"
        )
