"""Memory that is known beforehand."""

from __future__ import annotations

import sys

import pytest
import torch

from benchmarks.memory import allocated, rise

MIB = 2**20
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def step():
    first = torch.ones(13 * MIB)  # 52 MiB
    del first
    return torch.ones(11 * MIB).sum()  # 44 MiB, after the first is gone


def test_the_rise_is_what_a_step_holds_at_once():
    assert 51 * MIB < rise(step) < 60 * MIB


def test_what_is_allocated_is_the_tensors_that_are_there_at_once():
    held = torch.ones(17 * MIB)
    assert 52 * MIB <= allocated(step, "cpu") < 52.1 * MIB
    assert allocated(lambda: held.add_(1), "cpu") < MIB


def test_memory_that_was_held_before_does_not_count():
    held = torch.ones(29 * MIB)
    assert rise(lambda: held.add_(1)) < 4 * MIB


def test_an_earlier_peak_does_not_hide_a_lower_one():
    torch.ones(37 * MIB).sum()
    assert 27 * MIB < rise(lambda: torch.ones(7 * MIB).sum()) < 36 * MIB
