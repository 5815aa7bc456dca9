"""Where a run goes on that is started again with the same command."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_warn

from perceiver.callbacks.checkpoint import kept
from runner.checkpoints import read_checkpoint


def checkpoint_to_resume(config: DictConfig) -> str | None:
    """The checkpoint that `ckpt_path` or `resume` names; None = there is none, begin anew.

    `resume=auto` takes the last one of the run folder that is whole.

    Raises:
        ValueError: both are given, `resume` is something else, the folder is a new one each time,
            or it has no whole checkpoint though it has some.
    """
    if config.resume is None:
        return config.ckpt_path
    if config.resume != "auto":
        raise ValueError(
            f"resume={config.resume} must be auto or null; ckpt_path=FILE names a checkpoint"
        )
    if config.ckpt_path:
        raise ValueError(
            f"resume=auto looks in the run folder, and ckpt_path={config.ckpt_path} names another "
            "place: give one of them"
        )
    if HydraConfig.initialized():
        said = HydraConfig.get().overrides.hydra
        if not any(word.startswith(("hydra.run.dir=", "hydra.sweep.dir=")) for word in said):
            raise ValueError(
                "resume=auto goes on in a folder that you name, and by default every run has a new "
                "one: add hydra.run.dir=FOLDER"
            )
    folder = Path(config.paths.run_dir) / "checkpoints"
    found = kept(folder)
    for path in found:
        try:
            read_checkpoint(path)
        except ValueError as error:
            rank_zero_warn(f"{error}: looking for the one before it")
        else:
            rank_zero_info(f"going on from {path}")
            return str(path)
    if found:
        raise ValueError(
            f"none of {', '.join(path.name for path in found)} in {folder} is whole: choose "
            "another hydra.run.dir to begin anew"
        )
    rank_zero_info(f"there is no checkpoint in {folder}: beginning anew")
    return None
