"""What the numbers of a record depend on, and where records of this machine lie."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")


def describe(device: str, threads: int = 0, libraries: Iterable[str] = ()) -> dict[str, Any]:
    """The machine without its own name.

    Args:
        device: "cpu" or "cuda", what is measured.
        threads: of the CPU; 0 = torch's choice.
        libraries: whose versions matter.
    """
    import torch

    described = {
        "device": device,
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads or torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in libraries},
    }
    return described | ({"accelerator": torch.cuda.get_device_name()} if device == "cuda" else {})


def processor() -> str:
    """The model of the CPU, and the widest instructions that torch multiplies with on it.

    Virtual machines name AMD's processors without their generation: the family tells it.
    """
    import torch

    from perceiver.ops.matmul import amd_family

    told = getattr(torch.cpu, "get_capabilities", dict)()  # not in all releases of torch
    widest = "AMX" if told.get("amx_bf16") else torch.backends.cpu.get_cpu_capability()
    name = told.get("cpu_name") or platform.processor() or platform.machine()
    family = f", family {amd_family()}" if amd_family() else ""
    return f"{name}{family}, {widest}"


def record(path: Path, kind: str, device: str, threads: int = 0) -> dict[str, Any]:
    """What a file holds, to be added to.

    Raises:
        ValueError: it is of another kind, or was recorded on another machine or with other threads,
            whose times are not comparable.
    """
    held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if held.get("kind") != kind:
        raise ValueError(f"{path.name} holds no {kind} to add to: give another --json FILE")
    here = describe(device, threads)
    for asked in (title, _threads):
        if asked(held["machine"]) != asked(here):
            raise ValueError(
                f"{path.name} was recorded on {asked(held['machine'])} and this is {asked(here)}, "
                "whose times are not to be compared: give another --json FILE"
            )
    return held


def _threads(described: dict[str, Any]) -> str:
    return f"{described.get('threads')} threads"


def joined(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The machine of a record that was added to: all versions, of one library perhaps several."""
    versions = dict(before.get("versions", {}))
    for name, newest in now["versions"].items():
        if newest not in (told := versions.get(name, "")).split(" and "):
            versions[name] = f"{told} and {newest}" if told else newest
    peaks = before.get("peaks", {}) | now.get("peaks", {})
    return now | {"versions": versions} | ({"peaks": peaks} if peaks else {})


def title(described: dict[str, Any]) -> str:
    """What sets the machine of a record apart from others."""
    of_cpu = f"{described.get('processor', 'of no name')}, {described.get('cores', 1)} cores"
    return described.get("accelerator") or of_cpu


def place(kind: str, device: str) -> Path:
    """The file of this machine's results of one kind."""
    return RESULTS / slug(title(describe(device))) / f"{kind}.json"


def slug(title: str) -> str:
    """A title in the name of a file."""
    return re.sub(r"\W+", "-", title.lower()).strip("-")
