"""Bits per sequence: the cost of the right answers, on scored steps, in bits."""

import math

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from perceiver.tasks import SequenceObjective, SupervisedTask
from perceiver.types import Batch

B, T, K = 3, 5, 7


def batch(target, part=""):
    scored = torch.zeros(len(target), T, dtype=torch.bool)
    scored[:, 2:4] = True
    return Batch(
        inputs={"sequence": torch.randn(len(target), T, K)},
        targets={"target": target},
        known={"target": scored},
        part=part,
    )


def bits_target():
    return torch.randint(0, 2, (B, T, K)).float()


def test_bits_are_minus_log2_of_the_right_bits_on_scored_steps():
    torch.manual_seed(0)
    target, outputs = bits_target(), torch.randn(B, T, K)
    made = batch(target)
    wanted = torch.zeros(B)
    for b in range(B):
        for t in (2, 3):
            for k in range(K):
                p = 1 / (1 + math.exp(-outputs[b, t, k]))
                wanted[b] -= math.log2(p if target[b, t, k] else 1 - p)
    scores = SequenceObjective(out_dim=K).scores(outputs, made)
    torch.testing.assert_close(scores["bits_per_sequence"], wanted)


def test_classes_cost_minus_log2_of_their_softmax():
    torch.manual_seed(0)
    target, outputs = torch.randint(0, K, (B, T)), torch.randn(B, T, K)
    scores = SequenceObjective(out_dim=K).scores(outputs, batch(target))
    chosen = outputs.log_softmax(-1).gather(-1, target[..., None]).squeeze(-1)
    torch.testing.assert_close(scores["bits_per_sequence"], -chosen[:, 2:4].sum(-1) / math.log(2))


def test_errors_count_wrong_answers_on_scored_steps_alone():
    target = bits_target()
    outputs = 9 * (2 * target - 1)
    outputs[:, [0, 1, 4]] *= -1  # wrong, but nobody asked
    outputs[0, 2, :2] *= -1
    scores = SequenceObjective(out_dim=K).scores(outputs, batch(target))
    assert scores["errors_per_sequence"].tolist() == [2, 0, 0]
    assert scores["solved"].tolist() == [0, 1, 1]
    classes = torch.randint(0, K, (B, T))
    sure = 9.0 * torch.eye(K)[classes]
    sure[1, 3] = sure[1, 3].roll(1)
    scores = SequenceObjective(out_dim=K).scores(sure, batch(classes))
    assert scores["errors_per_sequence"].tolist() == [0, 1, 0]


class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(K))

    def forward(self, inputs, masks, present):
        return self.logit.expand(*inputs["sequence"].shape[:2], K)


def test_test_reports_longer_sequences_apart():
    ones = torch.ones(B, T, K)
    batches = [batch(ones), batch(ones[:1]), batch(0 * ones, "length_40")]
    module = SupervisedTask(
        model=Constant(),
        objective=SequenceObjective(out_dim=K),
        optimizer=torch.optim.Adam,
        modalities=["sequence"],
        parts={"length": [40, 80]},
    )
    module.model.logit.data.fill_(1.0)
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    [values] = trainer.test(module, DataLoader(batches, batch_size=None), verbose=False)
    right = 2 * K * math.log2(1 + math.exp(-1))
    wrong = 2 * K * math.log2(1 + math.exp(1))
    assert values["test/bits_per_sequence"] == pytest.approx(right, rel=1e-5)
    assert values["test/bits_per_sequence/length_40"] == pytest.approx(wrong, rel=1e-5)
    assert values["test/errors_per_sequence/length_40"] == 2 * K
    assert values["test/loss"] == pytest.approx(math.log(1 + math.exp(-1)), rel=1e-5)
    assert not any("length_80" in name for name in values)  # nothing of that length was there


def test_wrong_options_and_outputs_are_refused():
    with pytest.raises(ValueError, match="monitor=acc with mode=max: choose bits_per_sequence"):
        SequenceObjective(out_dim=K, monitor="acc", mode="max")
    with pytest.raises(ValueError, match="monitor=solved with mode=min"):
        SequenceObjective(out_dim=K, monitor="solved")
    made = batch(bits_target())
    with pytest.raises(ValueError, match=r"out_dim=7 a step; the model gives \(3, 5, 6\)"):
        SequenceObjective(out_dim=K).scores(torch.zeros(B, T, K - 1), made)
