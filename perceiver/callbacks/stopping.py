"""Ends of a fit before its time: by a signal, and by a loss that is no number."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from perceiver.callbacks.checkpoint import LastCheckpoint, is_dry_run, validates_next


class Interrupted(BaseException):
    """A run was told to end, and did so in order.

    Args:
        signum: the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.signum = signum


class StopBySignal(pl.Callback):
    """Ends a fit behind the step that it is at, saved, when SIGTERM or SIGINT comes.

    A `LastCheckpoint` of the trainer writes where to go on, and `Interrupted` is raised in all
    processes. A validation that has begun is finished first. A second SIGINT ends at once. Under
    SLURM with requeueing its signal does the same and queues the job again.

    Lightning's own handlers save nothing, and let processes wait for one another for ever.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._is_saved = False
        self._before: dict[int, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore
        if stage != "fit" or threading.current_thread() is not threading.main_thread():
            return
        self._received, self._is_saved = None, False
        wanted: list[int] = [signal.SIGTERM, signal.SIGINT]
        if requeues := _requeue_signal(trainer):
            wanted.append(requeues)
        launcher = trainer.strategy.launcher

        def note(signum: int, _: Any) -> None:
            if self._received is not None:
                if signum == signal.SIGINT:
                    raise Interrupted(signum)
                return
            self._received = signum
            if signum == signal.SIGTERM and launcher is not None:
                launcher.kill(signum)  # tells the processes that it started
            name = signal.Signals(signum).name
            rank_zero_info(f"{name}: ending after this step; SIGINT (Ctrl-C) ends at once")

        self._before = {one: signal.signal(one, note) for one in wanted}

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)
        self._before = {}

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self.teardown(trainer, pl_module, "fit")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end_if_told(trainer)  # the end of the epoch before was saved

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._is_saved:
            self._end_if_told(trainer)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self._is_told(trainer) and not validates_next(trainer):
            self._save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        # At the end of an epoch `LastCheckpoint` saves by itself.
        if self._is_told(trainer) and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end_if_told(trainer)

    def _is_told(self, trainer: pl.Trainer) -> bool:
        """Whether any process was; all ask at the same places."""
        is_told = self._received is not None
        if trainer.world_size > 1:
            is_told = trainer.strategy.reduce_boolean_decision(is_told, all=False)
        if is_told and self._received is None:
            self._received = signal.SIGTERM
        return is_told

    def _save(self, trainer: pl.Trainer) -> None:
        # The step is still to be logged: it ends at the start of the next.
        self._is_saved = True
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, LastCheckpoint) and not is_dry_run(trainer):
                callback.save(trainer)

    def _end_if_told(self, trainer: pl.Trainer) -> None:
        if not self._is_told(trainer):
            return
        assert self._received is not None
        if trainer.is_global_zero and self._received == _requeue_signal(trainer):
            _requeue()
        raise Interrupted(self._received)


def _requeue_signal(trainer: pl.Trainer) -> int | None:
    """What SLURM sends before it takes a job's machines away, if the job is to be queued again."""
    environment = trainer._accelerator_connector.cluster_environment
    if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
        return None
    return environment.requeue_signal or signal.SIGUSR1


def _requeue() -> None:
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
    if not re.fullmatch("[0-9_-]+", job):
        raise ValueError(f"SLURM_JOB_ID={job!r} is no number of a job")
    done = subprocess.run(["scontrol", "requeue", job], check=False)
    said = "is queued again" if done.returncode == 0 else f"could not be queued again: {done}"
    rank_zero_info(f"SLURM's job {job} {said}")


class FiniteLoss(pl.Callback):
    """Ends a fit at the first loss that is not finite, or leaves out its step.

    On a CPU, in several processes, and where steps are left out, the loss is looked at before
    gradients are computed from it. One GPU is not waited for: it has taken some more steps by
    then, but no checkpoint of them is written.

    Args:
        on_nonfinite: "stop", or "skip": the step changes no weights, until `in_a_row` of them
            follow one another.
        in_a_row: so many such steps that follow one another stop a run that skips.

    Raises:
        ValueError: for another word; in a fit, naming the step.
    """

    def __init__(self, *, on_nonfinite: str = "stop", in_a_row: int = 10) -> None:
        if on_nonfinite not in ("stop", "skip"):
            raise ValueError(f"on_nonfinite={on_nonfinite!r} must be stop or skip")
        self.on_nonfinite, self.in_a_row = on_nonfinite, in_a_row
        self._skips, self._skipped = False, 0
        self._watched: deque[tuple[Tensor, Any, str]] = deque()  # is finite, when known, sentence

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        skips, several = self.on_nonfinite == "skip", trainer.world_size > 1
        if loss.is_cuda and not skips and not several:
            self._watch(trainer, loss)
            return
        is_bad = not bool(loss.detach().isfinite().all())
        if several:
            is_bad = trainer.strategy.reduce_boolean_decision(is_bad, all=False)
        if not is_bad:
            return
        said = _sentence(trainer)
        if not skips:
            raise ValueError(
                f"{said}; callbacks.finite_loss.on_nonfinite=skip leaves such steps out"
            )
        self._skips = True
        if self._skipped + 1 >= self.in_a_row:
            raise ValueError(f"{said}, as in the {self._skipped} steps before it")
        rank_zero_warn(f"{said}: the step is left out")

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        self._skipped = self._skipped + 1 if self._skips else 0
        if self._skips:
            optimizer.zero_grad(set_to_none=True)
        self._skips = False

    def _watch(self, trainer: pl.Trainer, loss: Tensor) -> None:
        is_finite = loss.detach().isfinite().all().to("cpu", non_blocking=True)
        known = torch.cuda.Event()
        known.record()
        self._watched.append((is_finite, known, _sentence(trainer)))
        self._look(lambda event: event.query())

    def _look(self, is_known: Callable[[Any], bool]) -> None:
        while self._watched and is_known(self._watched[0][1]):
            is_finite, _, said = self._watched.popleft()
            if not is_finite:
                self._watched.clear()
                raise ValueError(said)

    def _wait(self) -> None:
        self._look(lambda event: event.synchronize() is None)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._wait()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._wait()


def _sentence(trainer: pl.Trainer) -> str:
    rates = {f"{group['lr']:.3g}" for one in trainer.optimizers for group in one.param_groups}
    return (
        f"the loss of step {trainer.global_step} (epoch {trainer.current_epoch}) is not finite, at "
        f"a learning rate of {' and '.join(sorted(rates))}: lower optimizer.lr or "
        "trainer.gradient_clip_val, lengthen the warm-up, or look at the data of that step"
    )
