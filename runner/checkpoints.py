"""Checkpoints as plain data: reading them without running code, and telling whose they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint, tensors on the CPU.

    Only plain data is read: a file that asks for code to be run is refused.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a checkpoint, is damaged, or holds more than plain data.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # anything at all comes of reading bytes that are no checkpoint
        raise ValueError(
            f"{path} is not a checkpoint of plain data (damaged, or made by other software): "
            f"{(str(error) or type(error).__name__).splitlines()[0]}"
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{path} is not a checkpoint: it has no state_dict")
    return checkpoint


def check_same_model(checkpoint: dict[str, Any], module: nn.Module, path: str | Path) -> None:
    """Refuse a checkpoint of another model, naming the first difference.

    Raises:
        ValueError: if names or shapes of the weights differ.
    """
    saved, ours = checkpoint["state_dict"], module.state_dict()
    prefix = f"checkpoint {path} belongs to another model: "
    suffix = "; compare the config.yaml in its run folder with this run's overrides"
    for name in ours:
        if name not in saved:
            raise ValueError(f"{prefix}it has no {name}{suffix}")
        if saved[name].shape != ours[name].shape:
            raise ValueError(
                f"{prefix}its {name} is {tuple(saved[name].shape)}, "
                f"here it is {tuple(ours[name].shape)}{suffix}"
            )
    for name in saved:
        if name not in ours:
            raise ValueError(f"{prefix}this one has no {name}{suffix}")


def check_same_optimizer(
    checkpoint: dict[str, Any], config: dict[str, Any], path: str | Path
) -> None:
    """Refuse to resume from a checkpoint whose optimiser is another one, or is not in it.

    Raises:
        ValueError: naming both.
    """
    if not checkpoint.get("optimizer_states"):
        raise ValueError(
            f"checkpoint {path} holds weights alone, without the state of an optimiser to go on "
            "from: resume from the last.ckpt of its run"
        )
    saved = checkpoint.get("run_config", {}).get("optimizer", {}).get("_target_")
    ours = config["optimizer"]["_target_"]
    if saved is not None and saved != ours:
        raise ValueError(
            f"checkpoint {path} was trained by {saved}, whose state {ours} cannot go on from: "
            "choose the same optimizer"
        )
