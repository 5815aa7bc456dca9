"""Averaged weights: a moving average whose memory grows with the run."""

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.testing import assert_close

from perceiver.callbacks import WarmedAverage, WarmedModel


def averaged_by_hand(values: list[float], decay: float) -> float:
    average = values[0]
    for n, value in enumerate(values[1:], start=1):
        kept = min(decay, (1 + n) / (10 + n))
        average = kept * average + (1 - kept) * value
    return average


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.99])
def test_weights_and_statistics_are_averaged_and_counters_copied(decay):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double()
    average = WarmedModel(model, decay=decay)
    values = torch.randn(11).double().tolist()
    for step, value in enumerate(values):
        with torch.no_grad():
            model[0].weight.fill_(value)
            model[1].running_mean.fill_(-value)
            model[1].num_batches_tracked.fill_(step)
        average.update_parameters(model)
    expected = averaged_by_hand(values, decay)
    assert_close(average.module[0].weight, torch.full((3, 2), expected).double())
    assert_close(average.module[1].running_mean, torch.full((3,), -expected).double())
    assert average.module[1].num_batches_tracked == 10
    assert_close(model[0].weight, torch.full((3, 2), values[-1]).double())


@pytest.mark.parametrize("decay", [-0.1, 1.0])
@pytest.mark.parametrize("made", [WarmedAverage, lambda decay: WarmedModel(nn.ReLU(), decay=decay)])
def test_an_average_that_never_moves_is_refused(decay, made):
    with pytest.raises(ValueError, match=r"must be at least 0 and below 1"):
        made(decay=decay)


def test_an_average_is_taken_up_again_where_it_was():
    model = nn.Linear(2, 3)
    average, resumed = WarmedModel(model, decay=0.9), WarmedModel(nn.Linear(2, 3), decay=0.9)
    for step in range(4):
        torch.nn.init.normal_(model.weight)
        average.update_parameters(model)
        if step == 1:
            resumed.load_state_dict(average.state_dict())
        elif step > 1:
            resumed.update_parameters(model)
    assert_close(resumed.state_dict(), average.state_dict())


class Linear(pl.LightningModule):
    """One layer, trained towards zero."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).square().mean()

    def validation_step(self, batch, batch_idx): ...

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "bf16-mixed"])
def test_the_average_is_kept_in_the_precision_that_the_model_was_made_in(precision, tmp_path):
    average = WarmedAverage(decay=0.9)
    trainer = pl.Trainer(
        accelerator="cpu",
        precision=precision,
        callbacks=[average],
        max_epochs=1,
        default_root_dir=tmp_path,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    model, before = Linear(), []

    class Validated(pl.Callback):
        def on_validation_start(self, run, module):
            held = average._average_model.module.layer.weight
            before.append((held.clone(), module.layer.weight.clone()))

        def on_validation_batch_start(self, run, module, *batch):
            assert_close(module.layer.weight, before[-1][0].to(module.layer.weight.dtype))

        def on_validation_end(self, run, module):
            held = average._average_model.module.layer.weight
            for value, kept in zip((held, module.layer.weight), before[-1], strict=True):
                assert_close(value, kept, rtol=0, atol=0)

    trainer.callbacks.append(Validated())
    dtype = torch.bfloat16 if precision == "bf16-true" else torch.float32
    batches = torch.utils.data.DataLoader(torch.randn(8, 2).to(dtype), batch_size=2)
    trainer.fit(model, batches, batches)
    assert len(before) == 2  # the sanity check's and the epoch's
    held = average._average_model.module.layer.weight
    assert held.dtype == torch.float32
    assert held.device == trainer.strategy.root_device
    assert_close(model.layer.weight, held.to(dtype))  # at the end the model is the average


def test_frozen_weights_are_copied_once_and_cost_no_step_anything():
    model = nn.Linear(3, 5)
    model.bias.requires_grad_(False)
    average = WarmedModel(model, decay=0.5)
    average.update_parameters(model)
    with torch.no_grad():
        model.bias += 1
        model.weight += 1
    average.update_parameters(model)
    torch.testing.assert_close(average.module.bias, model.bias - 1)
    assert not torch.equal(average.module.weight, model.weight - 1)
