"""Averaged weights: a moving average whose memory grows with the run."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.testing import assert_close

from perceiver.callbacks import warmed_ema


def averaged_by_hand(values: list[float], decay: float) -> float:
    average = values[0]
    for n, value in enumerate(values[1:], start=1):
        kept = min(decay, (1 + n) / (10 + n))
        average = kept * average + (1 - kept) * value
    return average


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.99])
def test_weights_and_statistics_are_averaged_and_counters_copied(decay):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double()
    average = AveragedModel(model, multi_avg_fn=warmed_ema(decay=decay), use_buffers=True)
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
def test_an_average_that_never_moves_is_refused(decay):
    with pytest.raises(ValueError, match=r"must be at least 0 and below 1"):
        warmed_ema(decay=decay)
