"""A folder of its own for every run, also for those that begin in the same second."""

from __future__ import annotations

import os
from itertools import chain, count
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write

from runner.literal import literal

# Where torchrun, SLURM and MPI say how many processes of a run there are.
_PROCESSES = ("WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


class OwnFolder(Callback):
    """Gives a run that begins a folder that no other has; a folder that was asked for stays.

    Hydra calls it once, before the run. A resolver would make folders for any text of a config that
    names it.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        hydra = config.hydra
        asked = any(word.startswith("hydra.run.dir=") for word in hydra.overrides.hydra)
        if asked or hydra.run.dir == ".":  # where the command was given
            return
        with read_write(hydra), open_dict(hydra):
            hydra.run.dir = literal(unused(hydra.run.dir))


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
