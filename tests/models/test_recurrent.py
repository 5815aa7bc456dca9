"""Recurrent models: any cell, step by step, to be stopped and gone on with."""

from functools import partial

import pytest
import torch

from perceiver.attention.memory import DNCCell, MemoryCell, NTMCell
from perceiver.attention.memory.multiplicative import FastWeights
from perceiver.models import LSTMCell, RecurrentModel

CELLS = {
    "lstm": partial(LSTMCell, hidden_dim=11),
    "ntm": partial(NTMCell, hidden_dim=11, num_rows=7, row_dim=3),
    "dnc": partial(DNCCell, hidden_dim=11, num_rows=7, row_dim=3, num_reads=2),
    "fast_weights": partial(
        MemoryCell, hidden_dim=11, memory=partial(FastWeights, key_dim=3, value_dim=2)
    ),
}


@pytest.fixture(params=CELLS, ids=str)
def model(request):
    torch.manual_seed(0)
    return RecurrentModel(input_dim=5, out_dim=13, cell=CELLS[request.param]).double()


def test_answers_do_not_depend_on_what_comes_later_or_on_other_examples(model):
    x = torch.randn(3, 17, 5, dtype=torch.float64)
    whole = model({"sequence": x})
    assert whole.shape == (3, 17, 13)
    torch.testing.assert_close(model({"sequence": x[1:2, :10]}), whole[1:2, :10])


def test_sequence_in_two_parts_gives_what_it_gives_in_one(model):
    x = torch.randn(3, 17, 5, dtype=torch.float64)
    first, _, state = model.unroll(x[:, :8])
    second, looks, _ = model.unroll(x[:, 8:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), model({"sequence": x}))
    assert len(looks) == 9


def test_every_parameter_is_trained_and_state_dicts_round_trip(model):
    x = torch.randn(2, 9, 5, dtype=torch.float64)
    model({"sequence": x}).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
    for parameter in model.parameters():
        assert parameter.isfinite().all()
    before = model({"sequence": x})
    saved = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    model.load_state_dict(saved)
    torch.testing.assert_close(model({"sequence": x}), before)


def test_initial_controllers_tell_inputs_of_zeros_and_ones_apart():
    torch.manual_seed(0)
    one_hot = torch.eye(29)[:, None]
    for std, told in ((1.0, True), (0.02, False)):
        model = RecurrentModel(
            input_dim=29, out_dim=2, cell=partial(DNCCell, hidden_dim=64, input_std=std)
        )
        state = model.cell.initial(29, one_hot)
        control = model.cell.step(one_hot[:, 0], state)[0][:, :64]
        alike = torch.nn.functional.cosine_similarity(control[:1], control[1:]).mean()
        assert bool(alike < 0.5) is told


def test_other_inputs_than_a_sequence_are_refused(model):
    with pytest.raises(ValueError, match="reads 'sequence' alone, not image, text"):
        model(dict.fromkeys(("image", "text"), torch.zeros(1, 2, 3)))
