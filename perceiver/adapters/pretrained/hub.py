"""Where the weights of a pretrained encoder lie: here, or on a hub."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from perceiver.adapters.pretrained.weights import SUFFIXES, weights_file

SECONDS = 5.0  # that a server may take to answer
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


def needs(package: str, *, by: str) -> ValueError:
    """The error where a package is not installed."""
    return ValueError(
        f"{by} needs the package {package}: pip install 'perceiver-multimodal[pretrained]'"
    )


def find_weights(weights: str) -> Path:
    """The folder or file of that name; what is none is looked for on the Hugging Face hub.

    Raises:
        FileNotFoundError: it looks like a path, and nothing is there.
        ValueError: it is neither here nor in the hub's cache, and the hub cannot be reached.
    """
    path = Path(weights).expanduser()
    if path.exists():
        return path
    if not _HUB_NAME.fullmatch(weights) or path.suffix in SUFFIXES:
        raise FileNotFoundError(f"weights={weights}: there is no such folder or file")
    return _from_hub(weights)


def _from_hub(name: str) -> Path:
    """A folder with the files of a model on the hub, from its cache where they are there."""
    nothing = f"weights={name} is no folder here, and the Hugging Face hub "
    try:
        from huggingface_hub import constants, get_session, snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise ValueError(f"{nothing}needs the package huggingface_hub") from error
    files: Any = {"allow_patterns": ["*.json", "*.safetensors"], "ignore_patterns": ["*/*"]}
    with contextlib.suppress(LocalEntryNotFoundError):
        folder = Path(snapshot_download(name, local_files_only=True, **files))
        with contextlib.suppress(FileNotFoundError):
            return weights_file(folder).parent
    if constants.is_offline_mode():
        raise ValueError(f"{nothing}is switched off (HF_HUB_OFFLINE): name a folder with weights")
    try:
        # Once, and not for long: the library itself would go on trying for most of a minute.
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception as error:
        raise ValueError(f"{nothing}cannot be reached: name a folder with weights") from error
    try:
        folder = Path(snapshot_download(name, **files))
        if not any(folder.glob("*.safetensors")):
            snapshot_download(name, allow_patterns=["*.bin"], ignore_patterns=["*/*"])
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{nothing}gives nothing of that name: {reason}") from error
    return folder


@contextlib.contextmanager
def _brief() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def published(fetch: Callable[[], Mapping[str, Tensor]], *, of: str) -> Mapping[str, Tensor]:
    """Weights that torch.hub keeps or downloads.

    Raises:
        ValueError: they are not kept, and cannot be downloaded.
    """
    try:
        with _brief(), open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            return fetch()
    except OSError as error:
        raise ValueError(
            f"the weights {of} are not here and cannot be downloaded ({error}): name a file"
        ) from error
