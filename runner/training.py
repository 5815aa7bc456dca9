"""A training run from a composed config: build, fit, test, report."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_only

from datamodules.core.datamodule import MultimodalDataModule
from perceiver.callbacks import ConfusionMatrix, PredictionTable
from perceiver.files import replacing
from perceiver.tasks import SingleLabel, Task
from runner.baseline import KINDS, Baselines, fit_baselines
from runner.build import build_data, build_task
from runner.checkpoints import (
    KeptFiles,
    check_same_model,
    check_same_optimizer,
    read_checkpoint,
)
from runner.checks import check_config, check_model
from runner.errors import keep_traceback, name_failed_job
from runner.literal import literal
from runner.loggers import build_callbacks, build_loggers
from runner.processes import launches_of_this_job_alone
from runner.report import environment, print_summary, write_results
from runner.speed import CompileTime, compile_model, use_float8, uses_gpu


def quiet_lightning() -> None:
    """Leave out what Lightning says at every start: advertisements, and options restated."""
    noise = ("Tip", "was configured so", "Loading `train_dataloader` to estimate")
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(
        lambda record: not any(words in record.getMessage() for words in noise)
    )
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint.*")
    warnings.filterwarnings("ignore", message=".*The dirpath has changed from.*")  # of `last`


def run_training(config: DictConfig) -> float:
    """Train and test as the config says; returns the validated metric of the tested weights."""
    try:
        folder = Path(config.paths.run_dir)
        with name_failed_job(), keep_traceback(folder), launches_of_this_job_alone():
            return _run(config)
    finally:
        if "wandb" in (config.get("logger") or {}):
            import wandb

            wandb.finish()


def _run(config: DictConfig) -> float:
    quiet_lightning()
    check_config(config)
    check_model(config)
    torch.set_float32_matmul_precision(config.matmul_precision)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    datamodule, config = build_data(config)
    task = build_task(config, datamodule.facts())
    plain = task.run_config
    folder = Path(config.paths.run_dir)
    save_config(plain, folder)
    if config.float8 and config.fit:
        use_float8(task.model, emulated=not uses_gpu(config.trainer))
    if config.compile:
        compile_model(task.model, config.compile)
    if hasattr(datamodule, "report_to"):
        datamodule.report_to(folder, is_first=rank_zero_only.rank == 0)

    loggers = build_loggers(config.get("logger"))
    callbacks = build_callbacks(config.get("callbacks"), loggers, config.trainer)
    callbacks += report_callbacks(task, datamodule, folder)
    compiling = CompileTime()
    callbacks += [compiling] if config.compile else []
    callbacks.append(KeptFiles())
    trainer: pl.Trainer = instantiate(config.trainer, logger=loggers, callbacks=callbacks)
    for logger in trainer.loggers:  # Lightning's own write it with OmegaConf
        by_omegaconf = isinstance(logger, CSVLogger | TensorBoardLogger)
        logger.log_hyperparams(literal(plain) if by_omegaconf else plain)
    if config.ckpt_path:
        resumed = read_checkpoint(config.ckpt_path)
        check_same_model(resumed, task, config.ckpt_path)
        if config.fit:
            check_same_optimizer(resumed, plain, config.ckpt_path)
        del resumed  # it is as large as the model and its optimiser
    elif not config.fit:
        raise ValueError("fit=false tests a checkpoint: name it with ckpt_path=FILE")

    results: dict[str, Any] = {"seed": config.seed}
    results["num_params"] = sum(p.numel() for p in task.model.parameters())
    if config.fit:
        start = time.perf_counter()
        trainer.fit(task, datamodule=datamodule, ckpt_path=config.ckpt_path, weights_only=True)
        results["fit_seconds"] = round(time.perf_counter() - start, 2)
        results |= as_floats(trainer.callback_metrics, "train/padding/")
        if compiling.seconds is not None:
            results["compile_seconds"] = round(compiling.seconds, 2)
        if trainer.interrupted:
            rank_zero_info("interrupted: reporting on what was trained so far")
    checkpoint = best_checkpoint(trainer) if config.fit else config.ckpt_path
    if config.float8 and config.fit:  # what is tested is what evaluate.py and predict.py will run
        trained, task = task, build_task(config, datamodule.facts())
        task.load_state_dict(trained.state_dict())
    # This callback would put the weights of the last step in place of a loaded checkpoint's.
    trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, WeightAveraging)]
    rest = {"datamodule": datamodule, "verbose": False, "weights_only": True}
    trainer.validate(task, ckpt_path=checkpoint, **rest)
    results |= as_floats(trainer.callback_metrics, "val/")
    if config.test:
        trainer.callbacks.insert(0, ResultsFirst(folder, results))
        trainer.test(task, ckpt_path=checkpoint, **rest)
        results |= as_floats(trainer.callback_metrics, "test/")
    finish(
        results | environment(),
        task,
        datamodule,
        folder,
        split="test" if config.test else "val",
        with_baselines=config.baseline and config.test and uses_all_data(trainer),
    )
    return results[f"val/{task.monitor}"]


@rank_zero_only
def save_config(plain: dict[str, Any], folder: Path) -> None:
    """Write config.yaml, for OmegaConf to read: it evaluates nothing in it."""
    with replacing(folder / "config.yaml") as file:
        file.write(OmegaConf.to_yaml(OmegaConf.create(literal(plain))).encode("utf-8"))


def report_callbacks(
    task: Task, datamodule: pl.LightningDataModule, folder: Path
) -> list[pl.Callback]:
    """The confusion picture and the table of predictions, where there are classes to confuse."""
    if getattr(task.objective, "targets", None) != SingleLabel.targets:
        return []
    names = datamodule.class_names
    return [
        ConfusionMatrix(class_names=names, folder=str(folder), target=task.objective.target),
        PredictionTable(class_names=names, folder=str(folder), target=task.objective.target),
    ]


def best_checkpoint(trainer: pl.Trainer) -> str | None:
    """The best checkpoint of the fit; None (the weights at hand) if none was kept."""
    return getattr(trainer.checkpoint_callback, "best_model_path", "") or None


def as_floats(metrics: dict[str, Any], prefix: str) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if name.startswith(prefix)}


class ResultsFirst(pl.Callback):
    """Writes what is known after a test, before other callbacks draw pictures of it.

    Args:
        folder: of the run.
        results: what was known before.
    """

    def __init__(self, folder: Path, results: Mapping[str, Any]) -> None:
        self.path, self.results = folder / "results.json", results

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            found = as_floats(trainer.callback_metrics, "test/")
            write_results(self.path, {**self.results, **found, **environment()})


def uses_all_data(trainer: pl.Trainer) -> bool:
    """Whether training and test see whole splits: a run that tries something out does not."""
    limits = (trainer.limit_train_batches, trainer.limit_test_batches)
    return limits == (1.0, 1.0) and not trainer.overfit_batches and not trainer.fast_dev_run


def baselines_beside(task: Task, datamodule: pl.LightningDataModule) -> Baselines | None:
    """What simple models reach on the same splits; None where there is nothing to compare."""
    objectives = getattr(task, "heads", {})
    objective = objectives.get(getattr(task, "monitored", ""))
    is_of_data = getattr(objective, "target", "") == "target"
    if not isinstance(datamodule, MultimodalDataModule) or not is_of_data:
        return None
    if objective.targets not in KINDS or not {"train", "test"} <= set(datamodule.splits):
        return None
    return fit_baselines(datamodule, objective)


@rank_zero_only
def finish(
    results: dict[str, Any],
    task: Task,
    datamodule: pl.LightningDataModule,
    folder: Path,
    *,
    split: str,
    with_baselines: bool = False,
) -> None:
    """Write results.json and print the summary.

    Args:
        results: of the run.
        task: that was run.
        datamodule: of its data.
        folder: of the run.
        split: whose metrics the summary shows.
        with_baselines: whether simple models are fitted, to be compared with.
    """
    found = baselines_beside(task, datamodule) if with_baselines else None
    if found is not None:
        results = results | found.values | {"baseline_seconds": found.seconds}
    broken = getattr(datamodule, "bad_examples", None)
    files = {}
    if broken is not None:
        names = {row["id"] for row in broken.rows()}
        results = results | {"broken_examples": len(names)}
        files[f"{len(names)} broken"] = broken.path
    write_results(folder / "results.json", results)
    print_summary(
        results,
        split=split,
        monitor=task.monitor,
        parts=task.parts,
        whole=" + ".join(datamodule.modalities),
        baselines={} if found is None else found.rows(task.heads[task.monitored].monitor),
        notes=() if found is None else found.notes,
        files=files
        | {
            "confusion": folder / "confusion.png",
            "classes": folder / "classes.csv",
            "predictions": folder / "predictions.csv",
            "results": folder / "results.json",
            "checkpoint": folder / "checkpoints" / "best.ckpt",
            "run folder": folder,
        },
    )
