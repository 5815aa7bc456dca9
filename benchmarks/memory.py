"""How far a step's memory rises above what stood before it."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")


def _status(key: str) -> int:
    """Bytes of a line of the process's status: VmRSS now, VmHWM at its highest."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def _give_back() -> None:
    """Return freed memory to the system, so that the next step has to ask for its own."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def rise(step: Callable[[], object], device: str) -> int:
    """Bytes that a step needs at its peak, over what the process held before.

    On a CPU the rise of the resident set, on a GPU that of torch's allocations. Where the kernel
    does not let a process reset its high-water mark (outside Linux) the mark must be a new one: a
    step that stays below an earlier peak then gives 0.
    """
    _give_back()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        before = _highest()
        step()
        return _highest() - before
    before = _status("VmRSS")
    step()
    return max(0, _status("VmHWM") - before)


def highest(device: str) -> int:
    """Bytes that the process held at its highest since the last `rise`."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return _status("VmHWM") if STATUS.exists() else _highest()


def _highest() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
