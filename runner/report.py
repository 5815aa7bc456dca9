"""What a run leaves: results.json, and a table for the person who waited."""

from __future__ import annotations

import json
import math
import platform
import subprocess
from collections.abc import Mapping, Sequence
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
    baselines: Mapping[str, tuple[str, int]] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """The monitored metric of every part of a split and of the whole, and where the files are.

    Subsets of the modalities are over the examples that have any of them: others for each. Where
    some examples lack a modality, another column is over those that have all.

    Args:
        parts: what the parts are: subsets of the modalities, or sequences of some lengths.
        whole: a name for the whole.
        files: what they are → where.
        baselines: name in `metrics` → what a row calls it, and of how many examples it is.
        notes: lines below the table.
    """
    head, _, metric = monitor.rpartition("/")
    start = f"{split}/{head}/" if head else f"{split}/"
    name_of_all, complete = f"{start}{metric}", f"{start}complete/"
    names = [n.removeprefix(name_of_all) for n in metrics if n.startswith(f"{name_of_all}/")]
    names += [""] if name_of_all in metrics else []
    columns = {"examples": f"{start}examples"} if f"{start}examples" in metrics else {}
    columns[name_of_all] = name_of_all
    if f"{complete}{metric}" in metrics:
        count = f"{metrics[f'{complete}examples']:,.0f}"
        columns[f"of the {count} that have all"] = f"{complete}{metric}"
    table = Table(parts, *columns, title="What the model knows from what it is given")
    for name in names:
        cells = [_number(metrics.get(f"{column}{name}"), column) for column in columns.values()]
        label = name.removeprefix("/").replace("+", " + ") or whole
        table.add_row(Text(shown(label)), *cells, style="" if name else "bold")
    table.add_section()
    for name, (label, of) in (baselines or {}).items():
        found = {"examples": f"{of:,}", name_of_all: _number(metrics[name], name)}
        table.add_row(
            Text(shown(f"baseline: {label}")), *(found.get(column, "") for column in columns)
        )
    console = Console(soft_wrap=True)
    console.print(table)
    for note in notes:
        console.print(Text(shown(note, 1000)))
    padding = {n.rpartition("/")[2]: share for n, share in metrics.items() if "/padding/" in n}
    if padding:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in padding.items())
        console.print(Text(f"{'padding':12} {shares} of what training read"))
    for what, where in files.items():
        if where.exists():
            console.print(Text(f"{what:12} {shown(str(where), 1000)}"))


def _number(value: float | None, name: str) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if name.endswith("examples") else f"{value:.4f}"
