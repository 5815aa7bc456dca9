"""What is logged of a training run's gradients and speed."""

import copy
from itertools import pairwise
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from perceiver.callbacks import (
    GradientNorm,
    PaddingShare,
    ProgressBar,
    Throughput,
    WarmedAverage,
    progress,
    throughput,
)
from perceiver.types import Batch


def norms_by_hand(task, loader) -> list[float]:
    """The gradient's 2-norm at every step of plain descent with rate 0.1."""
    model, norms = copy.deepcopy(task.model), []
    parameters = list(model.parameters())
    for batch in loader:
        outputs = model(batch.inputs, {}, {})[:, 0]
        loss = -outputs.log_softmax(1)[torch.arange(len(batch)), batch.targets["target"]].mean()
        gradients = torch.autograd.grad(loss, parameters)
        norms.append(sum(g.square().sum().item() for g in gradients) ** 0.5)
        scale = min(1.0, 0.01 / norms[-1])  # clipped to 0.01
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 0.1 * scale * gradient
    return norms


@pytest.mark.parametrize("every", [1, 3])
def test_the_gradient_norm_is_that_of_the_logged_step_before_clipping(
    task, data, trainer, memory, every
):
    loader = data(5, 2, 3, 7, 4, 2, 6)
    expected = norms_by_hand(task, loader)
    run = trainer(
        GradientNorm(every_n_steps=every), gradient_clip_val=0.01, log_every_n_steps=every
    )
    run.fit(task, loader)
    logged = memory.values("train/grad_norm")
    steps = [step for step in range(7) if (step + 1) % every == 0]
    assert logged == pytest.approx({step: expected[step] for step in steps}, rel=1e-4)


@pytest.mark.parametrize("interval", [1.0, 0.5])
def test_throughput_counts_examples_over_the_time_of_training_alone(
    task, data, trainer, memory, monkeypatch, interval
):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def taking(seconds, step):
        def slow(*arguments):
            clock.now += seconds
            return step(*arguments)

        return slow

    monkeypatch.setattr(task, "training_step", taking(0.5, task.training_step))
    monkeypatch.setattr(task, "validation_step", taking(1000.0, task.validation_step))
    run = trainer(Throughput(), max_epochs=2, val_check_interval=interval)
    run.fit(task, data(5, 2, 3, 7), data(2, 3))
    rates = list(memory.values("train/examples_per_second").values())
    assert rates == pytest.approx([17 / 2.0] * 2)


def test_throughput_is_logged_of_an_epoch_that_is_cut_short(
    task, data, trainer, memory, monkeypatch
):
    clock = iter(range(1000))
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    trainer(Throughput(), max_steps=2).fit(task, data(5, 2, 3, 7))
    assert list(memory.values("train/examples_per_second").values()) == [7.0]


def test_throughput_of_a_run_resumed_within_an_epoch_counts_from_there(
    task, data, trainer, memory, tmp_path, monkeypatch
):
    class SaveAfterThree(pl.Callback):
        def on_train_batch_end(self, run, module, outputs, batch, batch_idx):
            if batch_idx == 2:
                run.save_checkpoint(tmp_path / "within.ckpt")

    loader = data(3, 3, 3, 3)
    trainer(SaveAfterThree(), max_steps=3).fit(task, loader)
    clock = iter(range(1000, 2000))
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    trainer(Throughput(), max_steps=4).fit(task, loader, ckpt_path=tmp_path / "within.ckpt")
    assert list(memory.values("train/examples_per_second").values()) == [3.0]


def test_the_share_of_padding_is_that_of_each_epoch_and_of_masked_modalities_alone(
    task, trainer, memory
):
    def batch(length, *lengths):
        inputs = {"x": torch.randn(2, 3), "sound": torch.randn(2, length, 5)}
        mask = torch.arange(length) < torch.tensor(lengths)[:, None]
        return Batch(
            inputs,
            {} if mask.all() else {"sound": mask},
            {} if all(lengths) else {"sound": mask.any(1)},
            targets={"target": torch.tensor([0, 1])},
        )

    # 2 of 7, 0 of 6 and 4 of 8 places: an absent sound counts as nothing.
    loader = DataLoader([batch(7, 5, 0), batch(3, 3, 3), batch(4, 1, 3)], batch_size=None)
    trainer(PaddingShare(), max_epochs=2).fit(task, loader)
    assert list(memory.values("train/padding/sound").values()) == pytest.approx([6 / 21] * 2)
    assert not memory.values("train/padding/x")


@pytest.mark.parametrize(("seconds", "steps"), [(100.0, [0, 10, 13]), (0.0, range(14))])
def test_the_progress_bar_reads_the_loss_once_in_a_while_and_at_the_end(
    task, data, trainer, monkeypatch, seconds, steps
):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    bar, shown, losses = ProgressBar(seconds=seconds), [], []
    monkeypatch.setattr(progress.RichProgressBar, "get_metrics", lambda *run: {"v_num": 0})

    def showing(run, module):
        clock.now += 10.0
        losses.append(run.callback_metrics["train/loss"].item())
        shown.append(ProgressBar.get_metrics(bar, run, module)["train/loss"])
        return {}

    monkeypatch.setattr(bar, "get_metrics", showing)
    trainer(bar, enable_progress_bar=True, max_steps=14).fit(task, data(*[2] * 20))
    assert len(shown) == 15  # and once after the epoch, which max_steps cut short
    assert list(dict.fromkeys(shown)) == [losses[step] for step in steps]
    assert shown[-1] == losses[-1]


class Reads(TorchDispatchMode):
    """Counts the numbers that are read from tensors, for which a GPU would be waited for."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        # Whole numbers are counters, which stand on the host.
        if function is torch.ops.aten._local_scalar_dense.default:
            self.count += args[0].is_floating_point()
        return function(*args, **(kwargs or {}))


class ReadsOfSteps(pl.Callback):
    def __init__(self, reads):
        self.reads, self.counts = reads, []

    def on_train_batch_start(self, *run):
        self.counts.append(self.reads.count)


@pytest.mark.parametrize("seconds", [1e9, 0.0])
def test_no_number_is_read_in_a_step_but_what_the_bar_shows(task, data, trainer, seconds):
    with Reads() as reads:
        steps = ReadsOfSteps(reads)
        callbacks = [ProgressBar(seconds=seconds), WarmedAverage(decay=0.9), Throughput(), steps]
        run = trainer(*callbacks, enable_progress_bar=True, log_every_n_steps=100)
        run.fit(task, data(*[2] * 6))
    found = [after - before for before, after in pairwise(steps.counts)]
    assert found == [1, *[int(seconds == 0.0)] * 4]
