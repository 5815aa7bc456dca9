"""What a checkpoint says of one example: python predict.py ckpt_path=FILE image=… text=…"""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from runner.errors import clear_errors

CONFIG_DIR = Path(__file__).parent / "conf"


@hydra.main(version_base="1.3", config_path="conf", config_name="predict")
def predict(config: DictConfig) -> None:
    """Print the prediction for the inputs that are given."""
    from runner.prediction import run_prediction

    run_prediction(config)


if __name__ == "__main__":
    with clear_errors(CONFIG_DIR, "predict"):
        predict()
