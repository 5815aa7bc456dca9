"""Weight decay spares biases, norms and single vectors; every parameter is in one group."""

import torch
from torch import nn

from perceiver.tasks.optimisers import parameter_groups


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 5)
        self.norm = nn.LayerNorm(5)
        self.table = nn.Parameter(torch.zeros(7, 5))
        self.vector = nn.Parameter(torch.zeros(5))
        self.scalar = nn.Parameter(torch.zeros(()))
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        self.tied = nn.Linear(3, 5, bias=False)
        self.tied.weight = self.linear.weight


def names(model: nn.Module, parameters: list[nn.Parameter]) -> set[str]:
    known = {id(p): name for name, p in model.named_parameters()}
    return {known[id(p)] for p in parameters}


def test_matrices_are_decayed_and_all_else_is_not():
    model = Model()
    decayed, spared = parameter_groups(model)
    assert names(model, decayed["params"]) == {"linear.weight", "table"}
    assert names(model, spared["params"]) == {
        "linear.bias",
        "norm.weight",
        "norm.bias",
        "vector",
        "scalar",
    }
    assert spared["weight_decay"] == 0
    assert "weight_decay" not in decayed  # the optimiser's own


def test_every_trained_parameter_is_there_once_even_if_shared():
    model = Model()
    given = [p for group in parameter_groups(model) for p in group["params"]]
    trained = [p for p in model.parameters() if p.requires_grad]
    assert len(given) == len({id(p) for p in given}) == len(trained)


def test_one_step_without_gradients_decays_what_is_to_be_decayed_alone():
    model = Model()
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=0.1, weight_decay=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    values = {name: p.unique().item() for name, p in model.named_parameters()}
    for name, value in values.items():
        expected = 1 - 0.1 * 0.5 if name in ("linear.weight", "table") else 1.0
        assert abs(value - expected) < 1e-6, name


def test_a_group_without_parameters_is_left_out():
    groups = parameter_groups(nn.Linear(3, 5, bias=False))
    assert [len(group["params"]) for group in groups] == [1]
