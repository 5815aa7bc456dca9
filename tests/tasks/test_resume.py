"""A run that ended within an epoch goes on with the very next batch, to the same weights."""

import random
from functools import partial
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import nn

from datamodules.sets.sequences.copy import CopyDataModule
from perceiver.adapters import ModalityDropout
from perceiver.callbacks import LastCheckpoint
from perceiver.tasks import SequenceObjective, SingleLabel, SupervisedTask, schedules
from perceiver.tasks.draws import seed_batch
from tests.datamodules.random_clips import ClipsDataModule

BATCHES = 11  # an epoch
SCHEDULES = {
    "constant": partial(schedules.constant, warmup=0.3),
    "cosine": schedules.cosine,
    "flat_cosine": schedules.flat_cosine,
    "step": partial(schedules.step, milestones=[0.4, 0.7]),
}


class Linear(nn.Module):
    """A linear map of each step of a sequence."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, inputs, masks, present):
        return self.linear(inputs["sequence"])


class Sum(nn.Module):
    """Logits are a linear map of each clip's sum."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 2)

    def forward(self, inputs, masks, present):
        return self.linear(inputs["audio"].flatten(1).sum(1, keepdim=True))[:, None]


class Noisy(Sum):
    """The same with draws of every generator that there is on a CPU."""

    def forward(self, inputs, masks, present):
        logits = super().forward(inputs, masks, present)
        if not self.training:
            return logits
        logits = nn.functional.dropout(logits, 0.5) * random.random() * np.random.random()
        here = dict.fromkeys("ab", torch.ones(len(logits), dtype=torch.bool))
        kept = ModalityDropout(p=0.5)(here)["a"]
        return torch.where(kept[:, None, None], logits, 0.1 * logits)


def noisy(schedule, **options):
    return clips(schedule, model=Noisy(), **options)


def clips(schedule, model=None, **options):
    task = SupervisedTask(
        model=model or Sum(),
        objective=SingleLabel(out_dim=2),
        optimizer=partial(torch.optim.Adam, lr=0.1),
        scheduler=schedule,
        modalities=["audio"],
    )
    return task, ClipsDataModule(**options)


def copies(schedule, **options):
    task = SupervisedTask(
        model=Linear(),
        modalities=["sequence"],
        objective=SequenceObjective(out_dim=3),
        optimizer=partial(torch.optim.Adam, lr=0.1),
        scheduler=schedule,
    )
    data = CopyDataModule(
        bits=3,
        input_dim=4,
        out_dim=3,
        sizes={"train": [1, 5], "val": [1, 5], "test": [1, 5]},
        batches={"train": BATCHES, "val": 2, "test": 2},
        batch_size=2,
        **options,
    )
    return task, data


class Killed(Exception): ...


class Diary(pl.Callback):
    """Every batch of a training with its place and the rate; ends the run after some of them."""

    def __init__(self, *, killed_after=None, stopped_after=None, killed_at_validation=None):
        self.pages, self.killed, self.stopped = [], killed_after, stopped_after
        self.validations, self.last_validation = [], killed_at_validation

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if len(self.pages) == self.killed:
            raise Killed
        inputs = next(iter(batch.inputs.values()))
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.pages.append((trainer.current_epoch, batch_idx, inputs.tolist(), rate))

    def on_train_batch_end(self, trainer, *_):
        if len(self.pages) == self.stopped:
            trainer.should_stop = True

    def on_validation_start(self, trainer, pl_module):
        if not trainer.sanity_checking:
            if len(self.validations) == self.last_validation:
                raise Killed
            self.validations.append(trainer.global_step)


@pytest.fixture
def run(tmp_path):
    """run("name") trains, run("other", "name") goes on: pages of the diary, and the weights."""

    def train(
        folder, resumed=None, *, make=clips, schedule="cosine", ends=(), often=False, data=(), **fit
    ):
        torch.manual_seed(3)
        task, datamodule = make(SCHEDULES[schedule], **dict(data))
        diary = Diary(**dict(ends))
        when = {"every_n_train_steps": 1} if often else {}
        trainer = pl.Trainer(
            accelerator="cpu",
            callbacks=[
                LastCheckpoint(dirpath=tmp_path / folder, **when),
                diary,
            ],
            logger=False,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            **{"max_epochs": 3} | fit,
        )
        path = tmp_path / resumed / "last.ckpt" if resumed else None
        try:
            trainer.fit(task, datamodule=datamodule, ckpt_path=path, weights_only=True)
        except Killed:
            assert dict(ends).keys() & {"killed_after", "killed_at_validation"}
        train.validations = diary.validations
        return diary.pages, nn.utils.parameters_to_vector(task.parameters()).tolist()

    return train


@pytest.fixture
def goes_on(run):
    """Ends a run after some batches, goes on, and compares with the run that nobody ended."""

    def check(*, after, again=0, fit_of_part=(), **options):
        whole, weights = run("whole", **options)
        part, _ = run("part", **options | dict(fit_of_part))
        assert part == whole[:after]
        rest, ended = run("rest", "part", **options)
        assert rest == whole[after - again :]
        assert ended == weights

    return check


def killed(after, **options):
    return {"ends": {"killed_after": after}, "often": True} | options


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("accumulate", "again"), [(1, 0), (3, 2)])
def test_after_a_kill_with_every_schedule(goes_on, schedule, accumulate, again):
    options = {"schedule": schedule, "accumulate_grad_batches": accumulate}
    goes_on(after=16, again=again, fit_of_part=killed(16), **options)


@pytest.mark.parametrize("after", [4, 11, 15])
def test_what_is_drawn_goes_on_as_if_nothing_had_been(goes_on, after):
    goes_on(after=after, fit_of_part=killed(after), make=noisy, max_epochs=2)


@pytest.mark.parametrize(("interval", "number", "after", "again"), [(1.0, 1, 22, 1), (5, 2, 16, 1)])
def test_a_validation_that_was_cut_off_is_made_anew(run, interval, number, after, again):
    options = {"make": noisy, "val_check_interval": interval, "often": True}
    whole, weights = run("whole", **options)
    validations = run.validations
    part, _ = run("part", ends={"killed_at_validation": number}, **options)
    assert part == whole[:after]
    rest, ended = run("rest", "part", **options)
    assert rest == whole[after - again :]
    assert ended == weights
    assert run.validations == validations[number:]


def test_a_run_goes_on_drawing_with_its_own_seed(run, monkeypatch):
    whole, weights = run("whole", make=noisy)
    run("part", make=noisy, **killed(4))
    monkeypatch.setattr(torch, "initial_seed", lambda: 5)
    assert run("rest", "part", make=noisy) == (whole[4:], weights)


def test_every_process_and_batch_draws_other_numbers():
    def draw(seed, rank, batch):
        loop = SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=batch))
        place = SimpleNamespace(root_device=torch.device("cpu"))
        seed_batch(seed, Mock(pl.Trainer, global_rank=rank, fit_loop=loop, strategy=place))
        return random.random(), np.random.random(), float(torch.rand(()))

    places = [(3, 0, 0), (3, 1, 0), (3, 0, 1), (5, 0, 0)]
    for drawn in zip(*[draw(*place) for place in places], strict=True):
        assert len(set(drawn)) == len(places)
    assert draw(*places[1]) == draw(*places[1])


@pytest.mark.parametrize("after", [4, 11, 12, 22])
def test_after_a_kill_anywhere_in_problems_that_are_drawn(goes_on, after):
    goes_on(after=after, fit_of_part=killed(after), make=copies)


@pytest.mark.parametrize(
    ("make", "data"),
    [
        (copies, {"num_workers": 2}),
        (clips, {"bucket_batches": 4}),
        (noisy, {"bucket_batches": 4, "num_workers": 2}),
    ],
)
def test_with_workers_and_batches_of_similar_lengths(goes_on, make, data):
    goes_on(after=15, fit_of_part=killed(15), make=make, data=data, max_epochs=2)


@pytest.mark.parametrize("make", [clips, copies])
@pytest.mark.parametrize("epochs", [-1, 5])
def test_a_run_of_so_many_steps(goes_on, make, epochs):
    goes_on(after=15, fit_of_part=killed(15), make=make, max_steps=25, max_epochs=epochs)


@pytest.mark.parametrize("make", [clips, copies])
@pytest.mark.parametrize(
    ("accumulate", "after", "again"), [(1, 15, 0), (3, 15, 1), (3, 12, 1), (3, 21, 1)]
)
def test_a_run_that_a_callback_or_the_clock_stopped(goes_on, make, accumulate, after, again):
    options = {"make": make, "accumulate_grad_batches": accumulate}
    goes_on(after=after, again=again, fit_of_part={"ends": {"stopped_after": after}}, **options)


def test_a_run_that_gets_more_steps_than_it_first_had(run):
    # A schedule over more steps is another one, except at the constant rate.
    options = {"schedule": "constant", "max_epochs": -1}
    whole, _ = run("whole", max_steps=25, **options)
    run("part", max_steps=15, **options)
    rest, _ = run("rest", "part", max_steps=25, **options)
    assert [page[:3] for page in rest] == [page[:3] for page in whole[15:]]


def test_a_run_that_is_stopped_twice_between_two_steps(run):
    options = {"accumulate_grad_batches": 3}
    whole, weights = run("whole", **options)
    run("first", ends={"stopped_after": 5}, **options)
    again, _ = run("second", "first", ends={"stopped_after": 2}, **options)
    assert again == whole[3:5]
    rest, ended = run("rest", "second", **options)
    assert rest == whole[3:]
    assert ended == weights


def test_an_epoch_that_a_limit_makes_short_is_over(run):
    whole, weights = run("whole", limit_train_batches=5)
    run("part", ends={"stopped_after": 5}, limit_train_batches=5)
    assert run("rest", "part", limit_train_batches=5) == (whole[5:], weights)


def test_a_strategy_that_reads_the_checkpoint_late(goes_on, monkeypatch):
    # As strategies do that cut up the model.
    monkeypatch.setattr(SingleDeviceStrategy, "restore_checkpoint_after_setup", True)
    goes_on(after=4, fit_of_part=killed(4), max_epochs=2)
