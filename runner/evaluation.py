"""Testing a checkpoint: rebuild, run over a split, report."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from runner.ending import results_told, signals_end_in_order
from runner.errors import keep_traceback
from runner.loggers import build_loggers
from runner.processes import alone_in
from runner.rebuild import rebuild
from runner.report import environment
from runner.training import (
    ResultsFirst,
    as_floats,
    finish,
    quiet_lightning,
    report_callbacks,
)


def run_evaluation(config: DictConfig) -> float:
    """Evaluate `config.ckpt_path` on a split of its data; returns the monitored metric."""
    folder = Path(config.paths.run_dir)
    with signals_end_in_order(), keep_traceback(folder), alone_in(folder):
        return _run(config)


def _run(config: DictConfig) -> float:
    quiet_lightning()
    if config.split not in ("test", "val"):
        raise ValueError(f"split={config.split} must be test or val")
    limit = f"limit_{config.split}_batches"
    if config.trainer.get(limit) == 0:
        raise ValueError(f"trainer.{limit}=0 leaves nothing to evaluate: set at least 1")
    pl.seed_everything(config.seed, workers=True, verbose=False)
    options = OmegaConf.to_container(config.data, resolve=True)
    options["text.tokenizer"] = options.pop("text")["tokenizer"]
    task, datamodule, _ = rebuild(config.ckpt_path, data_options=options)
    datamodule.setup()
    folder = Path(config.paths.run_dir)
    if hasattr(datamodule, "report_to"):
        datamodule.report_to(folder, is_first=rank_zero_only.rank == 0)
    reports = report_callbacks(task, datamodule, folder) if config.split == "test" else []
    trainer: pl.Trainer = instantiate(
        config.trainer, logger=build_loggers(config.get("logger")), callbacks=reports
    )
    evaluate = trainer.test if config.split == "test" else trainer.validate
    results = {"ckpt_path": str(config.ckpt_path)} | environment()
    with results_told(folder / "results.json", results):
        trainer.callbacks.insert(0, ResultsFirst(folder / "results.json", results))
        evaluate(task, datamodule=datamodule, verbose=False)
        results |= as_floats(trainer.callback_metrics, f"{config.split}/")
        finish(results, task, datamodule, folder, split=config.split)
    return results[f"{config.split}/{task.monitor}"]
