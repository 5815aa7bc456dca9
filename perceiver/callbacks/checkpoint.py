"""The best checkpoint of a run, also where it goes on in another folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from perceiver.files import replacing


class BestCheckpoint(ModelCheckpoint):
    """Lightning's, except that a resumed run goes on from the best that there was.

    Lightning forgets how good it was where the folder is another one, and the first epoch after
    would be the best, however bad. Here the files that were kept beside the checkpoint that is
    resumed from are copied into the new folder, with what they reached; those of the old folder
    stay as they are. Where they are gone, a warning says so.
    """

    _resumed_from = ""
    _copies = False

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._resumed_from = str(trainer.ckpt_path)
        self._copies = trainer.is_global_zero

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        has_moved = state_dict.get("dirpath") != self.dirpath and state_dict["best_k_models"]
        super().load_state_dict(self._moved(state_dict) if has_moved else state_dict)

    def _moved(self, state: dict[str, Any]) -> dict[str, Any]:
        """The state with its files in this run's folder, to which they are copied."""
        assert self.dirpath is not None
        old, new = Path(self._resumed_from).parent, Path(self.dirpath)
        # By their names: the folder may have been moved, or the path may be a stranger's.
        names = {path: Path(path).name for path in state["best_k_models"]}
        if lost := [name for name in names.values() if not (old / name).is_file()]:
            rank_zero_warn(
                f"{', '.join(lost)} is not beside {self._resumed_from}: the best checkpoint is "
                "that of the epochs from here on"
            )
            return state
        if self._copies and old.resolve() != new.resolve():
            for name in names.values():
                with (old / name).open("rb") as kept, replacing(new / name) as file:
                    shutil.copyfileobj(kept, file)
        paths = {path: str(new / name) for path, name in names.items()}
        return state | {
            "dirpath": self.dirpath,
            "best_k_models": {paths[path]: score for path, score in state["best_k_models"].items()},
            "best_model_path": paths.get(state["best_model_path"], ""),
            "kth_best_model_path": paths.get(state.get("kth_best_model_path", ""), ""),
            "last_model_path": "",
        }
