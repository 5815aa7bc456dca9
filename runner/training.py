"""A training run from a composed config: build, fit, test, report."""

from __future__ import annotations

import logging
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_only

from perceiver.callbacks import ConfusionMatrix, Interrupted, PredictionTable
from perceiver.files import replacing
from perceiver.names import shown
from perceiver.tasks import SingleLabel, Task
from runner.baseline import baselines_of, sees_all
from runner.build import build_data, build_task
from runner.checkpoints import (
    KeptFiles,
    check_same_groups,
    check_same_model,
    check_same_optimizer,
    read_checkpoint,
)
from runner.checks import check_config, check_model
from runner.ending import results_told, signals_end_in_order
from runner.errors import keep_traceback, name_failed_job
from runner.literal import literal
from runner.loggers import build_callbacks, build_loggers
from runner.pretrained import prepare_encoders
from runner.processes import alone_in, launches_of_this_job_alone
from runner.report import environment, print_summary, write_results
from runner.resolve import shown_config
from runner.resuming import checkpoint_to_resume
from runner.speed import CompileTime, compile_model, use_float8, uses_gpu
from runner.starting import fit_to_start, freeze, start_from


def quiet_lightning() -> None:
    """Leave out what Lightning says at every start: advertisements, and options restated.

    What is said of data, which may hold anything, comes on one line.
    """
    noise = ("Tip", "was configured so", "Loading `train_dataloader` to estimate")
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(
        lambda record: not any(words in record.getMessage() for words in noise)
    )
    if warnings.formatwarning is not _format_warning:
        _formats.append(warnings.formatwarning)
        warnings.formatwarning = _format_warning
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint.*")
    warnings.filterwarnings("ignore", message=".*The dirpath has changed from.*")  # of `last`


_formats: list[Any] = []  # that there were before


def _format_warning(message: Any, *rest: Any, **options: Any) -> str:
    return _formats[-1](shown(str(message), 4000), *rest, **options)


def run_training(config: DictConfig) -> float:
    """Train and test as the config says; returns the validated metric of the tested weights."""
    try:
        folder = Path(config.paths.run_dir)
        with (
            signals_end_in_order(),
            name_failed_job(),
            keep_traceback(folder),
            launches_of_this_job_alone(),
            alone_in(folder),
        ):
            return _run(config)
    finally:
        if "wandb" in (config.get("logger") or {}):
            import wandb

            wandb.finish()


def _run(config: DictConfig) -> float:
    quiet_lightning()
    with open_dict(config):
        config.ckpt_path = checkpoint_to_resume(config)
    fit_to_start(config)
    prepare_encoders(config)
    check_config(config)
    check_model(config)
    torch.set_float32_matmul_precision(config.matmul_precision)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    datamodule, config = build_data(config)
    task = build_task(config, datamodule.facts())
    plain = task.run_config
    if config.init_from:
        start_from(config.init_from, task.model)
        freeze(task.model, config.freeze)
    folder = Path(config.paths.run_dir)
    for_people = shown_config(plain)
    save_config(for_people, folder)
    if config.float8 and config.fit:
        use_float8(task.model, emulated=not uses_gpu(config.trainer))
    if config.compile:
        compile_model(task.model, config.compile)
    if hasattr(datamodule, "report_to"):
        datamodule.report_to(folder, is_first=rank_zero_only.rank == 0)

    resume_step = None
    if config.ckpt_path:
        resumed = read_checkpoint(config.ckpt_path)
        check_same_model(resumed, task, config.ckpt_path)
        if config.fit:
            check_same_optimizer(resumed, plain, config.ckpt_path)
            check_same_groups(resumed, task.model, config.ckpt_path)
            if Path(config.ckpt_path).resolve().parent.parent == folder.resolve():
                resume_step = int(resumed["global_step"])
        del resumed  # it is as large as the model and its optimiser
    elif not config.fit:
        raise ValueError("fit=false tests a checkpoint: name it with ckpt_path=FILE")

    loggers = build_loggers(config.get("logger"), resume_step=resume_step)
    callbacks = build_callbacks(config.get("callbacks"), loggers, config.trainer)
    callbacks += report_callbacks(task, datamodule, folder)
    compiling = CompileTime()
    callbacks += [compiling] if config.compile else []
    callbacks.append(KeptFiles())
    trainer: pl.Trainer = instantiate(config.trainer, logger=loggers, callbacks=callbacks)
    for logger in trainer.loggers:  # Lightning's own write it with OmegaConf
        by_omegaconf = isinstance(logger, CSVLogger | TensorBoardLogger)
        logger.log_hyperparams(literal(for_people) if by_omegaconf else for_people)
    results: dict[str, Any] = {"seed": config.seed}
    told = None
    with results_told(folder / "results.json", results):
        if config.fit:
            told = fit(trainer, task, datamodule, config.ckpt_path, results)
            if compiling.seconds is not None:
                results["compile_seconds"] = round(compiling.seconds, 2)
        checkpoint = best_checkpoint(trainer) if config.fit else config.ckpt_path
        if config.float8 and config.fit:  # what is tested is what the other scripts will run
            trained, task = task, build_task(config, datamodule.facts())
            task.load_state_dict(trained.state_dict())
        # This callback would put the weights of the last step in place of a loaded checkpoint's.
        kept = [c for c in trainer.callbacks if not isinstance(c, WeightAveraging)]
        trainer.callbacks = [ResultsFirst(folder / "results.json", results), *kept]
        rest = {"datamodule": datamodule, "verbose": False, "weights_only": True}
        trainer.validate(task, ckpt_path=checkpoint, **rest)
        results |= as_floats(trainer.callback_metrics, "val/")
        results["num_params"] = sum(p.numel() for p in task.model.parameters())
        results |= environment()
        if config.test:
            trainer.test(task, ckpt_path=checkpoint, **rest)
            results |= as_floats(trainer.callback_metrics, "test/")
        with_baselines = config.baseline and config.test and told is None and sees_all(trainer)
        finish(
            results,
            task,
            datamodule,
            folder,
            split="test" if config.test else "val",
            with_baselines=with_baselines,
        )
        if told is not None:
            raise told
    return results[f"val/{task.monitor}"]


def fit(
    trainer: pl.Trainer,
    task: Task,
    datamodule: pl.LightningDataModule,
    checkpoint: str | None,
    results: dict[str, Any],
) -> Interrupted | None:
    """Train, and note it in `results`; returns the Ctrl-C that ended it, if one did.

    Raises:
        Interrupted: by another signal, which leaves no time to report, or in several processes.
    """
    start = time.perf_counter()
    try:
        trainer.fit(task, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
    except Interrupted as told:
        goes_on = f"resume=auto hydra.run.dir={trainer.default_root_dir}"
        rank_zero_info(f"{told} after {trainer.global_step} steps: go on with {goes_on}")
        if told.signum != signal.SIGINT or trainer.world_size > 1:
            raise
        rank_zero_info("reporting on what was trained so far; Ctrl-C again ends without")
        return told
    finally:
        results["fit_seconds"] = round(time.perf_counter() - start, 2)
        results["steps"] = trainer.global_step
        results |= as_floats(trainer.callback_metrics, "train/padding/")
    stopping = trainer.early_stopping_callback
    if stopping is not None and stopping.stopped_epoch:
        rank_zero_info(
            f"stopped after epoch {stopping.stopped_epoch}: the last {stopping.patience} "
            f"validations had no better {stopping.monitor} (callbacks.early_stopping.patience)"
        )
    return None


class ResultsFirst(pl.Callback):
    """Writes results.json before other callbacks draw and list what was tested."""

    def __init__(self, path: Path, results: dict[str, Any]) -> None:
        self.path, self.results = path, results

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self.results |= as_floats(trainer.callback_metrics, "test/")
            write_results(self.path, self.results)


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
    """Count broken examples, fit baselines and print the summary."""
    found = baselines_of(task, datamodule) if with_baselines else None
    if found is not None:
        results |= {**found.values, "baseline_seconds": found.seconds}
    broken = getattr(datamodule, "bad_examples", None)
    files = {}
    if broken is not None:
        names = {row["id"] for row in broken.rows()}
        results["broken_examples"] = len(names)
        files[f"{len(names)} broken"] = broken.path
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
