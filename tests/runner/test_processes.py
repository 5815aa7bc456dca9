"""What one process of a node does for the others."""

import subprocess
import sys
from pathlib import Path

import pytest

from runner.processes import prepare_once_a_node

PROJECT = Path(__file__).parents[2]
WORKER = """
import os, time
from pathlib import Path
from runner.processes import prepare_once_a_node

class Data:
    def prepare_data(self):
        time.sleep(2)
        with Path("fetched").open("a") as file:
            file.write(os.environ["LOCAL_RANK"])

for job in (1, 2):  # of a sweep
    prepare_once_a_node(Data())
    assert Path("fetched").read_text() == "0" * job
    time.sleep(0.5 * (os.environ["LOCAL_RANK"] == "0"))
"""


class Data:
    calls = 0

    def prepare_data(self):
        self.calls += 1


@pytest.mark.parametrize(("rank", "calls"), [(None, 1), ("0", 1), ("1", 0)])
def test_the_first_process_of_a_node_alone_prepares_the_data(monkeypatch, rank, calls):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank:
        monkeypatch.setenv("LOCAL_RANK", rank)
    data = Data()
    prepare_once_a_node(data)
    assert data.calls == calls


@pytest.mark.slow  # three processes that import torch
def test_processes_of_torchrun_wait_until_the_data_are_there(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, "worker.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(PROJECT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
