"""Reading the weights of a pretrained encoder without running code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
_PREFERRED = ("model.safetensors", "pytorch_model.bin")


def weights_file(path: Path) -> Path:
    """The file of weights in a folder of the hub's format; a file is that itself.

    Raises:
        FileNotFoundError: the folder has none.
        ValueError: it has several.
    """
    if path.is_file():
        return path
    for name in _PREFERRED:
        if (path / name).is_file():
            return path / name
    found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if not found:
        raise FileNotFoundError(
            f"weights={path}: the folder has no file of weights (model.safetensors, "
            "pytorch_model.bin)"
        )
    if len(found) > 1:
        raise ValueError(f"weights={path}: the folder has {len(found)} files of weights: name one")
    return found[0]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Name → tensor. Nothing but tensors is read.

    Raises:
        ValueError: it is no such file, or is damaged.
    """
    file = weights_file(path)
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        read: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (MemoryError, ImportError):
        raise
    except Exception as error:  # anything at all comes of reading bytes that are no weights
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{file} is not a file of weights alone: {reason}") from error
    for name in ("state_dict", "model"):
        if isinstance(read, Mapping) and isinstance(read.get(name), Mapping):
            read = read[name]
    if not isinstance(read, Mapping) or not all(isinstance(v, Tensor) for v in read.values()):
        raise ValueError(f"{file} holds no weights by name")
    return dict(read)


def load_weights(encoder: nn.Module, weights: Mapping[str, Tensor], *, of: str) -> None:
    """Put weights into an encoder; others, of heads say, are left over.

    Raises:
        ValueError: weights of the encoder are not there, or have another shape.
    """
    for name, ours in encoder.state_dict().items():
        given = weights.get(name)
        if given is None or given.shape != ours.shape:
            what = "has none" if given is None else f"has {tuple(given.shape)}"
            raise ValueError(
                f"the weights {of} are of another model: {name} is {tuple(ours.shape)} here, and "
                f"the file {what}"
            )
    encoder.load_state_dict(weights, strict=False)
