"""Loggers and callbacks from their configs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig
from pytorch_lightning.callbacks import LearningRateMonitor, ModelSummary, ProgressBar
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_info

from perceiver.callbacks import MetricsFile


def build_loggers(config: DictConfig | None, *, resume_step: int | None = None) -> list[Logger]:
    """All chosen loggers; wandb goes offline by itself where no account is set up.

    Args:
        config: name → logger.
        resume_step: the first step of a run that goes on in its own folder: what was logged from
            there on is logged again. None = a new run.
    """
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
        if resume_step is not None:
            options |= _continued(choice, resume_step)
        loggers.append(instantiate(choice, **options))
    return loggers


def _continued(choice: DictConfig, step: int) -> dict[str, Any]:
    """Options that let a logger go on with what it logged in the same folder."""
    kind = get_class(choice._target_)
    if issubclass(kind, MetricsFile):
        return {"resume_step": step}
    if issubclass(kind, TensorBoardLogger):
        return {"purge_step": step}
    if issubclass(kind, WandbLogger):
        # wandb's names: run-<time>-<id>, offline-run-<time>-<id>.
        runs = sorted(Path(choice.save_dir, "wandb").glob("*run-*-*"), key=_time_of)
        return {"id": runs[-1].name.rpartition("-")[2], "resume": "allow"} if runs else {}
    return {}


def _time_of(folder: Path) -> str:
    return folder.name.split("run-")[-1]


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
