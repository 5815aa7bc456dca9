"""What a checkpoint says of one example: python predict.py ckpt_path=FILE image=… text=…"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from runner.errors import clear_errors
from runner.literal import literal

CONFIG_DIR = Path(__file__).parent / "conf"


@hydra.main(version_base="1.3", config_path="conf", config_name="predict")
def predict(config: DictConfig) -> None:
    """Print the prediction for the inputs that are given."""
    from runner.prediction import run_prediction

    run_prediction(config)


def as_it_stands(word: str) -> str:
    """An override `text=…` in quotes, so that what people write is not read as Hydra's grammar."""
    name, separator, text = word.partition("=")
    is_quoted = len(text) > 1 and text[0] in "'\"" and text[-1] == text[0]
    if name != "text" or not separator or is_quoted or text == "null":
        return word
    # In quotes a backslash counts before a quote alone.
    text = literal(text)
    text = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)
    return f"{name}='{text}'"


if __name__ == "__main__":
    sys.argv[1:] = [as_it_stands(word) for word in sys.argv[1:]]
    with clear_errors(CONFIG_DIR, "predict"):
        predict()
