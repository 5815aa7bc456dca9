"""Test a checkpoint with every subset of its modalities: python evaluate.py ckpt_path=FILE."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from runner.errors import clear_errors

CONFIG_DIR = Path(__file__).parent / "conf"


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def evaluate(config: DictConfig) -> float:
    """Evaluate as the config says; returns the monitored metric."""
    from runner.evaluation import run_evaluation

    return run_evaluation(config)


if __name__ == "__main__":
    with clear_errors(CONFIG_DIR, "evaluate"):
        evaluate()
