"""A fit that a signal or a loss ends, and what it leaves."""

import os
import signal

import pytest
import pytorch_lightning as pl
import torch

from perceiver.callbacks import FiniteLoss, Interrupted, LastCheckpoint, StopBySignal
from perceiver.tasks import SupervisedTask


class Send(pl.Callback):
    """Sends signals to this process before a step, or in a validation."""

    def __init__(self, *signals, step, in_validation=False):
        self.signals, self.step, self.in_validation = signals, step, in_validation

    def _send(self, trainer):
        if trainer.global_step == self.step and not trainer.sanity_checking:
            for one in self.signals:
                os.kill(os.getpid(), one)

    def on_train_batch_start(self, trainer, *_):
        if not self.in_validation:
            self._send(trainer)

    def on_validation_batch_start(self, trainer, *_):
        if self.in_validation:
            self._send(trainer)


@pytest.fixture
def interrupted(task, data, trainer, tmp_path):
    """Fits three epochs of five steps until a signal; the signal, and the last checkpoint."""

    def fit(*callbacks, **options):
        last = LastCheckpoint(dirpath=tmp_path)
        run = trainer(
            *callbacks,
            StopBySignal(),
            last,
            enable_checkpointing=True,
            max_epochs=3,
            **options,
        )
        before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
        with pytest.raises(Interrupted) as told:
            run.fit(task, data(2, 2, 2, 2, 2), data(3))
        assert before == {one: signal.getsignal(one) for one in before}
        assert run.global_step == task._trainer.global_step
        path = tmp_path / "last.ckpt"
        saved = torch.load(path, weights_only=True) if path.exists() else None
        return told.value.signum, saved, run

    return fit


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [0, 2, 6])
def test_a_signal_ends_a_fit_behind_its_step_saved_and_logged(interrupted, memory, signum, step):
    told, saved, run = interrupted(Send(signum, step=step))
    assert told == signum
    assert run.global_step == saved["global_step"] == step + 1
    assert max(memory.values("train/loss")) == step


@pytest.mark.parametrize(("interval", "step"), [(1.0, 5), (0.5, 7)])
def test_a_signal_in_a_validation_lets_it_finish(interrupted, memory, interval, step):
    send = Send(signal.SIGTERM, step=step, in_validation=True)
    _, saved, run = interrupted(send, val_check_interval=interval)
    assert run.global_step == saved["global_step"] == step
    assert max(memory.values("val/loss")) == step - 1


def test_a_signal_in_the_last_step_still_ends_the_run(interrupted):
    _, saved, _ = interrupted(Send(signal.SIGTERM, step=14))
    assert saved["global_step"] == 15


def test_a_second_ctrl_c_ends_at_once(interrupted):
    told, saved, run = interrupted(Send(signal.SIGINT, signal.SIGINT, step=2))
    assert told == signal.SIGINT
    assert saved is None
    assert run.global_step == 2


def test_slurm_queues_a_job_again_that_it_stops(interrupted, tmp_path, monkeypatch):
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said\n')
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name, value in {"NTASKS": "1", "JOB_ID": "1009", "JOB_NAME": "run", "PROCID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    for name in ("LOCALID", "NODEID"):
        monkeypatch.setenv(f"SLURM_{name}", "0")
    told, saved, _ = interrupted(Send(signal.SIGUSR1, step=2))
    assert told == signal.SIGUSR1
    assert saved["global_step"] == 3
    assert (tmp_path / "said").read_text() == "requeue 1009\n"


class Poisoned(SupervisedTask):
    """Its losses of some batches, counted over all epochs, are no numbers."""

    bad = ()

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if self.trainer.fit_loop.epoch_loop.total_batch_idx not in self.bad:
            return loss
        return loss * float("nan")


@pytest.fixture
def poisoned(task):
    task.__class__ = Poisoned
    return task


def weights(task):
    return torch.nn.utils.parameters_to_vector(task.parameters()).detach()


def test_the_first_loss_that_is_no_number_stops_before_its_step(poisoned, data, trainer):
    poisoned.bad = (3,)
    run, batches = trainer(FiniteLoss()), data(2, 2, 2, 2, 2)
    words = r"step 3 \(epoch 0\) is not finite, at a learning rate of 0\.1: lower .*skip"
    with pytest.raises(ValueError, match=words):
        run.fit(poisoned, batches)
    assert weights(poisoned).isfinite().all()
    assert run.global_step == 3


@pytest.mark.parametrize(("accumulate", "bad"), [(1, (3,)), (2, (2, 5))])
def test_steps_of_such_losses_can_be_left_out(poisoned, data, trainer, accumulate, bad):
    poisoned.bad = bad
    seen = {}

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            seen[trainer.fit_loop.epoch_loop.total_batch_idx] = weights(poisoned).clone()

    skips = FiniteLoss(on_nonfinite="skip")
    with pytest.warns(UserWarning, match="the step is left out"):
        trainer(skips, Watch(), accumulate_grad_batches=accumulate, gradient_clip_val=1.0).fit(
            poisoned, data(2, 2, 2, 2, 2, 2, 2, 2)
        )
    changed = [n for n in range(1, 8) if not torch.equal(seen[n], seen[n - 1])]
    assert changed == ([1, 2, 4, 5, 6, 7] if accumulate == 1 else [1, 7])


def test_a_run_of_such_losses_alone_is_stopped(poisoned, data, trainer):
    poisoned.bad = range(1, 100)
    skips = FiniteLoss(on_nonfinite="skip", in_a_row=3)
    said = pytest.warns(UserWarning, match="step 2 .* is left out")
    with said, pytest.raises(ValueError, match=r"step 3 .* the 2 steps before"):
        trainer(skips).fit(poisoned, data(2, 2, 2, 2, 2))
    with pytest.raises(ValueError, match="must be stop or skip"):
        FiniteLoss(on_nonfinite="go on")
