"""Memory that is known beforehand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.memory import allocated

MIB = 2**20
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# In a process of its own: a heap that others have left holes in may put one block into a hole and
# the next into another, and keep both.
RISES = """
import json, torch
from benchmarks.memory import rise
from tests.benchmarks.test_benchmark_memory import MIB, step
held = torch.ones(29 * MIB)
rises = {"at once": rise(step), "held before": rise(lambda: held.add_(1))}
torch.ones(37 * MIB).sum()
rises["after a peak"] = rise(lambda: torch.ones(7 * MIB).sum())
print(json.dumps(rises))
"""


def step():
    first = torch.ones(13 * MIB)  # 52 MiB
    del first
    return torch.ones(11 * MIB).sum()  # 44 MiB, after the first is gone


@pytest.fixture(scope="module")
def rises():
    """Bytes by name, of a process that has held nothing before."""
    done = subprocess.run(
        [sys.executable, "-c", RISES],
        cwd=Path(__file__).parents[2],
        env={name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_the_rise_is_what_a_step_holds_at_once(rises):
    assert 51 * MIB < rises["at once"] < 60 * MIB


def test_what_is_allocated_is_the_tensors_that_are_there_at_once():
    held = torch.ones(17 * MIB)
    assert 52 * MIB <= allocated(step, "cpu") < 52.1 * MIB
    assert allocated(lambda: held.add_(1), "cpu") < MIB


def test_memory_that_was_held_before_does_not_count(rises):
    assert rises["held before"] < 4 * MIB


def test_an_earlier_peak_does_not_hide_a_lower_one(rises):
    assert 27 * MIB < rises["after a peak"] < 36 * MIB
