"""What a step needs in memory beside what stood before it: of tensors, and of the whole process."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

STATUS = Path("/proc/self/status")


def _status(key: str) -> int:
    """Bytes of a line of the process's status: VmRSS now, VmHWM at its highest."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def give_back() -> None:
    """Return freed memory to the system, for the next step, or another process, to ask for."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def allocated(step: Callable[[], object], device: str) -> int:
    """Bytes of the tensors that a step holds at its peak, beside those that were there before."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        step()
    events = run.profiler.kineto_results.events()
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def rise(step: Callable[[], object]) -> int:
    """Bytes that the process's resident set rises by in a step.

    More than its tensors: freed memory that the allocator could not use again, libraries' buffers.
    Where the kernel does not let a process reset its high-water mark (outside Linux) the mark must
    be a new one: a step that stays below an earlier peak then gives 0.
    """
    give_back()
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
