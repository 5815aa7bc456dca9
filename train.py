"""Train a multimodal Perceiver: python train.py --help lists every choice."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from runner.errors import clear_errors

CONFIG_DIR = Path(__file__).parent / "conf"


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def train(config: DictConfig) -> float:
    """Train and test as the config says; returns the validated metric, for sweeps."""
    from runner.training import run_training  # torch takes seconds to import; --help should not

    return run_training(config)


if __name__ == "__main__":
    with clear_errors(CONFIG_DIR):
        train()
