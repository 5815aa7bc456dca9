"""Checkpoints as plain data: reading them without running code, and telling whose they are."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from perceiver.tasks.optimisers import parameter_groups


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint, tensors on the CPU.

    Only plain data is read: a file that asks for code to be run is refused.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a checkpoint, is damaged, or holds more than plain data.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    if "::" in str(path):  # Lightning would take it for a chain of URLs
        raise ValueError(f"a checkpoint must not be called {str(path)!r}: rename what has '::'")
    try:
        _check_sums(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # anything at all comes of reading bytes that are no checkpoint
        raise ValueError(
            f"{path} is not a checkpoint of plain data (damaged, or made by other software): "
            f"{(str(error) or type(error).__name__).splitlines()[0]}"
        ) from error
    weights = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(weights, dict):
        raise ValueError(f"{path} is not a checkpoint: it has no state_dict")
    if not all(isinstance(n, str) and isinstance(v, torch.Tensor) for n, v in weights.items()):
        raise ValueError(f"{path} is not a checkpoint: its state_dict holds more than tensors")
    return checkpoint


def _check_sums(path: str | Path) -> None:
    """Refuse a file of which a bit has changed since it was written, or that holds more than it is.

    torch looks at neither, and writes nothing compressed: so nothing inflates.

    Raises:
        ValueError: naming the member of the archive.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no archive of torch's")
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        packed = [one.filename for one in members if one.compress_type != zipfile.ZIP_STORED]
        if packed or sum(one.file_size for one in members) > os.path.getsize(path):
            raise ValueError(f"{(packed or ['it'])[0]} is compressed, which torch does not write")
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} in it is not as it was written")


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


def check_same_groups(checkpoint: dict[str, Any], module: nn.Module, path: str | Path) -> None:
    """Refuse to resume where other parameters are trained: encoders frozen in one run alone, say.

    Raises:
        ValueError: the optimiser's state is of other parameters.
    """
    saved = [len(g["params"]) for g in checkpoint["optimizer_states"][0]["param_groups"]]
    ours = [len(group["params"]) for group in parameter_groups(module)]
    if saved != ours:
        raise ValueError(
            f"checkpoint {path} trains {sum(saved)} parameters in groups of {saved}, this run "
            f"{sum(ours)} in groups of {ours}: give frozen, lr_scale and lr_decay of pretrained "
            "encoders as its run had them"
        )


class KeptFiles(pl.Callback):
    """Lets a run that resumes find the files of its checkpoint's folder, and no others.

    The state of Lightning's checkpoint callbacks names the files that were kept, which are loaded
    in the end and removed when better ones come. Whatever folder or URL it says, they are looked
    for beside the checkpoint, under the same names.
    """

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        folder = os.path.realpath(os.path.dirname(str(trainer.ckpt_path)))
        for state in (checkpoint.get("callbacks") or {}).values():
            if isinstance(state, dict) and "best_model_path" in state:
                _keep_in(folder, state)


def _keep_in(folder: str, state: dict[str, Any]) -> None:
    """Changes the state of a checkpoint callback to name files of a folder alone."""

    def inside(path: Any) -> str:
        name = os.path.basename(path) if isinstance(path, str) else ""
        return os.path.join(folder, name) if name.endswith(".ckpt") else ""

    scores = state.get("best_k_models")
    kept = {inside(path): n for path, n in scores.items()} if isinstance(scores, dict) else {}
    state["best_k_models"] = {path: score for path, score in kept.items() if path}
    for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[name] = inside(state.get(name))
    if state["kth_best_model_path"] not in state["best_k_models"]:
        state["kth_best_model_path"] = next(iter(state["best_k_models"]), "")
    if not os.path.isfile(state["best_model_path"]):
        state["best_model_path"] = ""
    state["dirpath"] = folder
