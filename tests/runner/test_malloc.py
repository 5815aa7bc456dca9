"""Memory that is freed and wanted again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = """
import resource, sys
from runner.malloc import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    print("-")
    raise SystemExit
def step():
    blocks = [bytearray(int(sys.argv[2]) << 20) for _ in range(7)]
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_what_a_step_freed_the_next_one_has_without_a_page_fault():
    def faults(word, mebibytes=5):
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, word, str(mebibytes)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    kept = faults("keep")
    if kept == "-":
        pytest.skip("another C library")
    assert int(kept) < 50 < 1000 < int(faults("give back"))
    assert int(faults("keep", 40)) > 1000  # larger blocks go back
