"""What a run needs beyond Lightning to go on within an epoch with the very next batch."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl


def make_loader_again(trainer: pl.Trainer) -> None:
    """Let a run that is resumed make its training loader when Lightning knows where it was.

    Whoever asks for the number of steps while a fit is set up, a schedule say, makes Lightning make
    the loader. It tells a loader where to go on only when it makes it.
    """
    # Some strategies name the checkpoint only after this.
    if trainer.ckpt_path or trainer.strategy.restore_checkpoint_after_setup:
        trainer.fit_loop._combined_loader = None


def is_between_steps(trainer: pl.Trainer) -> bool:
    """Whether gradients of the batches so far are kept for a step of the optimiser to come."""
    return trainer.fit_loop._should_accumulate()


def loader_states(trainer: pl.Trainer) -> list[Any]:
    """How far the training loaders are that can say so, where a step takes several batches."""
    loader = trainer.fit_loop._combined_loader
    if loader is None or trainer.accumulate_grad_batches == 1:
        return []
    return loader._state_dicts()


def leave_epoch_open(checkpoint: dict[str, Any], trainer: pl.Trainer, stepped: list[Any]) -> None:
    """Let a checkpoint that is written within an epoch say so, at the optimiser's last step.

    Lightning counts an epoch that `max_steps`, `max_time` or a callback stopped as a whole one, and
    a run that goes on would leave out the rest of it. No checkpoint holds gradients: batches
    that the optimiser has not stepped for are to be read again.

    Args:
        checkpoint: of a fit, as Lightning saves it; its progress is changed in place.
        trainer: of the fit.
        stepped: `loader_states` when the optimiser last stepped.
    """
    progress = checkpoint.get("loops", {}).get("fit_loop", {})
    if not progress:
        return
    batches = progress["epoch_loop.batch_progress"]
    if batches["is_last_batch"] or batches["current"]["ready"] >= trainer.num_training_batches:
        return
    for epochs in progress["epoch_progress"].values():
        if epochs["processed"] == epochs["started"] == epochs["ready"] > 0:
            epochs["processed"] -= 1
            epochs["completed"] = min(epochs["completed"], epochs["processed"])
    if again := batches["current"]["ready"] % trainer.accumulate_grad_batches:
        for counts in (batches["current"], batches["total"]):
            counts |= dict.fromkeys(counts, counts["ready"] - again)
        progress["state_dict"] = progress["state_dict"] | {"combined_loader": stepped}
