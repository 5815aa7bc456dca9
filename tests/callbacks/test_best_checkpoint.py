"""A run that goes on in another folder knows the best that there was."""

import time
import warnings
from itertools import count
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from perceiver.callbacks import BestCheckpoint, LastCheckpoint


class Scripted(pl.LightningModule):
    """Its validation loss in each epoch is as it is told."""

    def __init__(self, losses: dict[int, float]) -> None:
        super().__init__()
        self.layer, self.losses = nn.Linear(1, 1), losses

    def training_step(self, batch, batch_idx):
        return self.layer(batch).sum()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.losses[self.current_epoch])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def fit(tmp_path):
    def run(folder, losses, ckpt_path=None, keep=1):
        best = BestCheckpoint(
            dirpath=tmp_path / folder,
            filename="best" if keep == 1 else "{epoch}",
            monitor="val/loss",
            mode="min",
            save_top_k=keep,
            enable_version_counter=False,
        )
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=max(losses) + 1,
            callbacks=[best],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=tmp_path,
        )
        data = DataLoader(torch.ones(1, 1))
        trainer.fit(Scripted(losses), data, data, ckpt_path=ckpt_path, weights_only=True)
        trainer.save_checkpoint(tmp_path / folder / "last.ckpt")
        return best

    return run


def epoch_of(path) -> int:
    return torch.load(path, weights_only=True)["epoch"]


def test_a_worse_epoch_after_the_resume_is_not_the_best(fit, tmp_path):
    fit("old", {0: 0.7, 1: 0.5})
    kept = (tmp_path / "old" / "best.ckpt").read_bytes()
    best = fit("new", {2: 0.9, 3: 0.8}, tmp_path / "old" / "last.ckpt")
    assert best.best_model_score == pytest.approx(0.5)
    assert best.best_model_path == str(tmp_path / "new" / "best.ckpt")
    assert (tmp_path / "new" / "best.ckpt").read_bytes() == kept


def test_a_better_one_takes_its_place_in_the_new_folder_alone(fit, tmp_path):
    fit("old", {0: 0.7, 1: 0.5})
    best = fit("new", {2: 0.9, 3: 0.3}, tmp_path / "old" / "last.ckpt")
    assert best.best_model_score == pytest.approx(0.3)
    assert epoch_of(tmp_path / "new" / "best.ckpt") == 3
    assert epoch_of(tmp_path / "old" / "best.ckpt") == 1


def test_several_are_kept_in_order_and_the_old_folder_keeps_its_own(fit, tmp_path):
    fit("old", {0: 0.7, 1: 0.5}, keep=2)
    fit("new", {2: 0.6, 3: 0.9}, tmp_path / "old" / "last.ckpt", keep=2)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "epoch=1.ckpt",
        "epoch=2.ckpt",
        "last.ckpt",
    }
    assert {path.name for path in (tmp_path / "old").iterdir()} == {
        "epoch=0.ckpt",
        "epoch=1.ckpt",
        "last.ckpt",
    }


def test_a_folder_that_was_moved_is_found(fit, tmp_path):
    fit("old", {0: 0.5})
    (tmp_path / "old").rename(tmp_path / "moved")
    best = fit("moved", {1: 0.9}, tmp_path / "moved" / "last.ckpt")
    assert best.best_model_score == pytest.approx(0.5)
    assert epoch_of(tmp_path / "moved" / "best.ckpt") == 0


def test_in_its_own_folder_a_run_goes_on_without_a_word(fit, tmp_path):
    fit("old", {0: 0.5})
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*dirpath.*")
        best = fit("old", {1: 0.9}, tmp_path / "old" / "last.ckpt")
    assert best.best_model_score == pytest.approx(0.5)


def test_a_best_that_is_gone_is_said(fit, tmp_path):
    fit("old", {0: 0.5})
    (tmp_path / "old" / "best.ckpt").unlink()
    with pytest.warns(UserWarning, match=r"best\.ckpt is not beside .*last\.ckpt"):
        best = fit("new", {1: 0.9}, tmp_path / "old" / "last.ckpt")
    assert best.best_model_score == pytest.approx(0.9)
    assert epoch_of(tmp_path / "new" / "best.ckpt") == 1


def test_the_last_ones_are_kept_in_order(task, data, tmp_path):
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=5,
        callbacks=[LastCheckpoint(dirpath=tmp_path, keep=3)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(task, data(2, 3), data(2))
    found = {path.name: epoch_of(path) for path in tmp_path.iterdir()}
    assert found == {"last.ckpt": 4, "last-1.ckpt": 3, "last-2.ckpt": 2}


def test_by_the_clock_it_is_written_within_an_epoch(task, data, tmp_path, monkeypatch):
    passed = count(40, 40)
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + next(passed))
    monkeypatch.setattr("perceiver.callbacks.checkpoint.time", clock)
    last, steps = LastCheckpoint(dirpath=tmp_path, every_minutes=1.0), []
    monkeypatch.setattr(last, "save", lambda trainer: steps.append(trainer.global_step))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[last],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(task, data(2, 2, 2, 2, 2, 2, 2), data(2))
    assert steps == [2, 4, 6, 7]


@pytest.mark.parametrize(
    ("options", "words"),
    [({"keep": 0}, "keep=0"), ({"every_n_train_steps": 3, "every_minutes": 5.0}, "give one")],
)
def test_last_checkpoints_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        LastCheckpoint(dirpath="run", **options)
