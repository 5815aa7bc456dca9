"""Loggers and callbacks from their configs."""

from __future__ import annotations

import os

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning.callbacks import LearningRateMonitor, ModelSummary, ProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_info


def build_loggers(config: DictConfig | None) -> list[Logger]:
    """All chosen loggers; wandb goes offline by itself where no account is set up."""
    loggers = []
    for name, choice in (config or {}).items():
        if choice is None:
            continue
        options = {}
        chosen = name != "wandb" or choice.mode or os.environ.get("WANDB_MODE")
        if not chosen and not _wandb_account():
            options["mode"] = "offline"
            rank_zero_info(
                "wandb: no account on this machine, logging offline "
                f"(afterwards: wandb login && wandb sync {choice.save_dir}/wandb/offline-run-*)"
            )
        loggers.append(instantiate(choice, **options))
    return loggers


def _wandb_account() -> bool:
    import wandb

    # Looks for credentials only; neither asks for them nor tries them on the server.
    return wandb.login(prompt=False, verify=False)


def build_callbacks(
    config: DictConfig | None, loggers: list[Logger], trainer: DictConfig
) -> list[pl.Callback]:
    """All chosen callbacks, without those that the trainer's config switches off.

    A monitor of the learning rate needs a logger to report to.
    """
    switches = {
        LearningRateMonitor: bool(loggers),
        ProgressBar: trainer.enable_progress_bar is not False,
        ModelSummary: trainer.enable_model_summary is not False,
    }
    off = tuple(kind for kind, is_on in switches.items() if not is_on)
    callbacks = [instantiate(choice) for choice in (config or {}).values() if choice is not None]
    return [callback for callback in callbacks if not isinstance(callback, off)]
