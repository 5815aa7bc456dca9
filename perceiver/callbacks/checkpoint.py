"""The best checkpoint of a run, also where it goes on in another folder, and the last ones."""

from __future__ import annotations

import os
import shutil
import time
from datetime import timedelta
from itertools import pairwise
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


class LastCheckpoint(ModelCheckpoint):
    """Where a run can go on: `last.ckpt`, and before it `last-1.ckpt`, `last-2.ckpt`, …

    It is written at the end of each epoch, however often validation comes, and within epochs as
    told. The one before is kept for the case that the last one is damaged.

    Args:
        dirpath: the folder.
        every_n_train_steps: steps from one to the next, within an epoch too; None = epochs alone.
        every_minutes: the same by the clock.
        keep: how many there are.

    Raises:
        ValueError: none are kept, or steps and minutes are both given.
    """

    def __init__(
        self,
        *,
        dirpath: str | Path,
        every_n_train_steps: int | None = None,
        every_minutes: float | None = None,
        keep: int = 2,
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep={keep} checkpoints must be at least 1")
        if every_n_train_steps is not None and every_minutes is not None:
            raise ValueError(
                f"every_n_train_steps={every_n_train_steps} and every_minutes={every_minutes} "
                "exclude each other: give one"
            )
        super().__init__(
            dirpath=dirpath,
            filename=self.CHECKPOINT_NAME_LAST,
            monitor=None,
            save_top_k=1,
            every_n_train_steps=every_n_train_steps,
            train_time_interval=None if every_minutes is None else timedelta(minutes=every_minutes),
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        self.keep = keep
        self._is_due = False

    def save(self, trainer: pl.Trainer) -> None:
        """Write one now; all processes call it."""
        self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    # A run that goes on from before a validation leaves it out, and with it a best checkpoint.
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._is_due |= self._is_due_now(trainer)
        if self._is_due and not validates_next(trainer):
            self._is_due = False
            self.save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        is_last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if self._is_due and not is_last and not trainer.sanity_checking:
            self._is_due = False
            self.save(trainer)

    def _is_due_now(self, trainer: pl.Trainer) -> bool:
        if is_dry_run(trainer) or self._last_global_step_saved == trainer.global_step:
            return False
        if self._every_n_train_steps:
            return trainer.global_step % self._every_n_train_steps == 0
        if self._train_time_interval is None:
            return False
        now = time.monotonic()
        last = self._last_time_checked or now
        is_due = now - last >= self._train_time_interval.total_seconds()
        is_due = trainer.strategy.broadcast(is_due)
        self._last_time_checked = now if is_due else last
        return is_due

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Also where the last step has saved: a run that goes on from here need not validate again.
        self._is_due = False
        if not is_dry_run(trainer):
            self.save(trainer)

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        if trainer.is_global_zero:
            _move_back(Path(filepath), self.keep)
        super()._save_checkpoint(trainer, filepath)


def is_dry_run(trainer: pl.Trainer) -> bool:
    """Whether it is one of Lightning's `fast_dev_run`, which leaves no files."""
    return bool(getattr(trainer, "fast_dev_run", False))


def validates_next(trainer: pl.Trainer) -> bool:
    """Whether a validation follows the batch that has just been trained on."""
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


def kept(folder: Path) -> list[Path]:
    """What a `LastCheckpoint` wrote in a folder, the latest first."""
    earlier = {int(n): p for p in folder.glob("last-*.ckpt") if (n := p.stem[5:]).isdecimal()}
    last = folder / "last.ckpt"
    return [last] * last.is_file() + [earlier[number] for number in sorted(earlier)]


def _move_back(path: Path, keep: int) -> None:
    """Give each checkpoint the name of the one before it; the last one keeps its own too."""
    if keep == 1 or not path.is_file():
        return
    names = [path.with_stem(f"{path.stem}-{number}") for number in range(keep - 1, 0, -1)]
    for older, newer in pairwise(names):
        if newer.is_file():
            os.replace(newer, older)
    names[-1].unlink(missing_ok=True)
    try:
        os.link(path, names[-1])
    except OSError:  # there are no links on this file system
        os.replace(path, names[-1])
