"""Several processes: what one of them does for all, and sweeps whose jobs launch their own."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytorch_lightning as pl
import torch.distributed as dist
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import open_dict, read_write
from pytorch_lightning.utilities.rank_zero import rank_zero_only

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# What Lightning's launcher leaves behind for its children; a second job must not inherit it.
_LAUNCH_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_LONGEST_DOWNLOAD = timedelta(days=7)
_TRIES, _PAUSE = 30, 0.1  # for a locked folder; seconds between two
_prepared = count()  # data sets, of the jobs of a sweep


@contextmanager
def launches_of_this_job_alone() -> Iterator[None]:
    """Let helper processes repeat this job of a sweep rather than the whole sweep.

    Lightning starts its other processes by running the command line again. In a sweep that line
    holds all jobs, so it is replaced by this job's overrides while the job runs, and the folder by
    its own.
    """
    launcher = "LOCAL_RANK" not in os.environ
    argv = sys.argv
    if HydraConfig.initialized() and launcher:
        hydra = HydraConfig.get()
        if hydra.mode == RunMode.MULTIRUN:
            kept = [a for a in argv[1:] if a.startswith(("--config", "-cn", "-cp", "-cd"))]
            sys.argv = [argv[0], *kept, *hydra.overrides.task]
        with read_write(hydra), open_dict(hydra):
            hydra.run.dir = hydra.runtime.output_dir
    try:
        yield
    finally:
        sys.argv = argv
        if launcher and dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()
            for name in _LAUNCH_VARIABLES:
                os.environ.pop(name, None)


def prepare_once_a_node(datamodule: pl.LightningDataModule) -> None:
    """`prepare_data` in the first process of each node alone, as Lightning has it.

    Processes that Lightning launches begin when the first is through with this; those of torchrun
    begin together, and wait for the first.
    """
    is_first = os.environ.get("LOCAL_RANK", "0") == "0"
    if is_first:
        datamodule.prepare_data()
    if dist.is_torchelastic_launched():
        done = f"prepared/{os.environ['GROUP_RANK']}/{next(_prepared)}"
        store, *_ = next(dist.rendezvous("env://", timeout=_LONGEST_DOWNLOAD))
        if is_first:
            store.set(done, "yes")
        else:
            store.wait([done])


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Refuse a folder that another run is writing to; where files cannot be locked, refuse none.

    Raises:
        ValueError: there is one.
        OSError: the folder cannot be written.
    """
    if fcntl is None or rank_zero_only.rank:  # the first process answers for the others
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        for _ in range(_TRIES):  # the workers of a killed run take a moment to end
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_PAUSE)
            except OSError:
                break
        else:
            raise ValueError(
                f"another run is writing to {folder}: wait for it, or name another folder with "
                "hydra.run.dir=FOLDER"
            )
        yield
