"""What a run leaves: results.json, and a table for the person who waited."""

from __future__ import annotations

import json
import math
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from perceiver.files import replacing
from perceiver.names import shown

PACKAGES = (
    "perceiver-multimodal",
    "torch",
    "torchvision",
    "torchaudio",
    "pytorch-lightning",
    "hydra-core",
    "wandb",
)


def environment() -> dict[str, Any]:
    """Versions of what the result depends on, and the commit of the code."""
    return {
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in PACKAGES},
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except OSError:
        return None
    return done.stdout.strip() or None


def write_results(path: Path, results: Mapping[str, Any]) -> None:
    """Write `results` as JSON, whole or not at all; null for what is not finite."""
    with replacing(path) as file:
        text = json.dumps(_finite(results), indent=2, allow_nan=False)
        file.write(f"{text}\n".encode())


def _finite(value: Any) -> Any:
    """JSON has no word for NaN and infinity."""
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_summary(
    metrics: Mapping[str, float],
    *,
    split: str,
    monitor: str,
    parts: str,
    whole: str,
    files: Mapping[str, Path],
) -> None:
    """The monitored metric of every part of a split and of the whole, and where the files are.

    Args:
        parts: what the parts are: subsets of the modalities, or sequences of some lengths.
        whole: a name for the whole.
    """
    name_of_all = f"{split}/{monitor}"
    prefix = f"{name_of_all}/"
    rows = {n.removeprefix(prefix): value for n, value in metrics.items() if prefix in n}
    table = Table(parts, name_of_all, title="What the model knows from what it is given")
    for name, value in rows.items():
        table.add_row(Text(shown(name.replace("+", " + "))), f"{value:.4f}")
    if name_of_all in metrics:
        table.add_row(Text(shown(whole)), f"{metrics[name_of_all]:.4f}", style="bold")
    console = Console(soft_wrap=True)
    console.print(table)
    padding = {n.rpartition("/")[2]: share for n, share in metrics.items() if "/padding/" in n}
    if padding:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in padding.items())
        console.print(Text(f"{'padding':12} {shares} of what training read"))
    for what, where in files.items():
        if where.exists():
            console.print(Text(f"{what:12} {shown(str(where), 1000)}"))
