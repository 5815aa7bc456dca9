"""A folder of its own for every run, also for those that begin in the same second."""

from __future__ import annotations

import os
from itertools import chain, count
from pathlib import Path

from omegaconf import OmegaConf

# Where torchrun, SLURM and MPI say how many processes of a run there are.
_PROCESSES = ("WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


def unused(folder: str) -> str:
    """The folder, or the first of folder-2, folder-3, … that is not there; it is made.

    Processes that a launcher started together, of one run, share the folder as it is named.
    """
    if any(int(os.environ.get(name, "1")) > 1 for name in _PROCESSES):
        return folder
    for name in chain([folder], (f"{folder}-{n}" for n in count(2))):
        try:
            Path(name).mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError:  # Hydra says so where it makes the folder itself
            return folder
        return name
    raise AssertionError("count has no end")


def register() -> None:
    """Let configs say ${unused:FOLDER}."""
    OmegaConf.register_new_resolver("unused", unused, use_cache=True, replace=True)
