"""A training step of a whole model compiles to one graph, and gives the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run_alone(backend: str) -> None:
    """In a process of its own: shape checks cannot be traced."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("compiled.py")), backend],
        capture_output=True,
        text=True,
        timeout=590,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.mark.slow
def test_a_step_is_one_graph():
    run_alone("aot_eager")


@pytest.mark.slow
def test_a_step_in_generated_code_gives_the_same():
    run_alone("inductor")
