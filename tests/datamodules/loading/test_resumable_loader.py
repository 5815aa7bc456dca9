"""ResumableLoader: a run killed in the middle of an epoch goes on with exactly what is left."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from tests.datamodules.random_clips import ClipsDataModule


class Recorder(pl.LightningModule):
    """Trains on nothing; keeps what it is shown, and dies when told."""

    def __init__(self, dies_after=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.dies_after = [], dies_after

    def training_step(self, batch, batch_idx):
        if len(self.seen) == self.dies_after:
            raise KeyboardInterrupt
        self.seen.append((self.current_epoch, tuple(batch.ids), batch.inputs["audio"].sum().item()))
        return self.weight.square()

    def validation_step(self, batch, batch_idx): ...

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(folder, *, every, dies_after=None, resume=None, limit=1.0, **options):
    recorder = Recorder(dies_after)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=3,
        limit_train_batches=limit,
        callbacks=ModelCheckpoint(
            folder, filename="last", every_n_train_steps=every, enable_version_counter=False
        ),
        logger=False,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    try:
        trainer.fit(
            recorder, datamodule=ClipsDataModule(**options), ckpt_path=resume, weights_only=True
        )
    except SystemExit:  # how Lightning ends after an interrupt
        assert dies_after is not None
    return recorder.seen


@pytest.mark.parametrize(
    "options", [{}, {"bucket_batches": 4, "sampler": "balanced"}, {"num_workers": 2}], ids=str
)
@pytest.mark.parametrize("every", [4, 11, 15])  # an epoch has 11 batches
def test_a_killed_run_continues_with_the_batches_that_it_has_not_seen(tmp_path, options, every):
    whole = train(tmp_path / "whole", every=every, **options)
    assert len(whole) == 33
    killed = train(tmp_path, every=every, dies_after=every + 2, **options)
    assert killed == whole[: every + 2]
    resumed = train(tmp_path, every=every, resume=tmp_path / "last.ckpt", **options)
    assert resumed == whole[every:]


def test_an_epoch_cut_short_on_purpose_is_not_taken_for_one_that_was_killed(tmp_path):
    whole = train(tmp_path / "whole", every=5, limit=5)
    train(tmp_path, every=5, limit=5, dies_after=6)
    assert train(tmp_path, every=5, limit=5, resume=tmp_path / "last.ckpt") == whole[5:]


def loader(**options):
    return ClipsDataModule(**options).train_dataloader()


def test_a_loader_alone_continues_too():
    first = loader()
    first.set_epoch(2)
    batches = iter(first)
    seen = [next(batches).ids for _ in range(4)]
    state = first.state_dict()
    assert state == {"epoch": 2, "batches": 4, "batch_size": 3}
    second = loader()
    second.load_state_dict(state)
    second.set_epoch(2)
    everything = [batch.ids for batch in loader_of_epoch(2)]
    assert seen + [batch.ids for batch in second] == everything
    assert len(list(second)) == len(everything), "the next time from the beginning"


def loader_of_epoch(epoch):
    made = loader()
    made.set_epoch(epoch)
    return made


def test_a_place_in_an_epoch_of_other_batches_is_refused():
    first = loader()
    next(iter(first))
    with pytest.raises(ValueError, match=r"middle of an epoch of 3 examples a batch.*has 5"):
        loader(batch_size=5).load_state_dict(first.state_dict())


def test_a_finished_epoch_may_be_followed_by_other_batches():
    first = loader()
    list(first)
    second = loader(batch_size=5)
    second.load_state_dict(first.state_dict())
    second.set_epoch(1)
    assert len(list(second)) == 7
