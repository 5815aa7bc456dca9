"""Several objectives over one model: targets of several kinds, which any example may lack."""

import json
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader

from datamodules.core.collate import Collator, Example
from datamodules.readers import Field
from perceiver.tasks import Regression, SingleLabel, SupervisedTask
from perceiver.types import Batch
from runner.recipe import provisional
from runner.training import run_training

# A class and a value of the same pictures, by a head each; what composes a run of them.
TWO_TARGETS = """
model:
  decoder:
    _target_: perceiver.models.Heads
    _partial_: true
    heads:
      kind: {_target_: perceiver.models.MeanPoolDecoder, _partial_: true, out_dim: 3}
      size: {_target_: perceiver.models.MeanPoolDecoder, _partial_: true, out_dim: 1}
task:
  objectives:
    kind: {_target_: perceiver.tasks.SingleLabel, out_dim: 3, target: kind}
    size: {_target_: perceiver.tasks.Regression, out_dim: 1, target: size}
  weights: {kind: 1.0, size: 0.5}
  monitor: kind
"""


class TwoLinears(nn.Module):
    """Two heads without a Perceiver."""

    def __init__(self):
        super().__init__()
        self.kind, self.size = nn.Linear(5, 3), nn.Linear(5, 1)

    def forward(self, inputs, masks, present):
        return {name: head(inputs["x"])[:, None] for name, head in self.named_children()}


def task(**options) -> SupervisedTask:
    settings = {
        "model": TwoLinears(),
        "objectives": {
            "kind": SingleLabel(out_dim=3, target="kind"),
            "size": Regression(out_dim=1, target="size"),
        },
        "optimizer": partial(torch.optim.SGD, lr=0.1),
        "modalities": ["x"],
    }
    return SupervisedTask(**(settings | options))


def batch(count=7, /, **known) -> Batch:
    return Batch(
        inputs={"x": torch.randn(count, 5)},
        targets={"kind": torch.randint(0, 3, (count,)), "size": torch.randn(count, 1)},
        known=known,
    )


def expected_losses(module, made) -> dict[str, torch.Tensor]:
    """Example by example, over those that have the target."""
    found = {}
    for name in ("kind", "size"):
        costs = []
        for row in range(len(made)):
            if name in made.known and not made.known[name][row]:
                continue
            output = getattr(module.model, name)(made.inputs["x"][row])
            target = made.targets[name][row]
            is_class = name == "kind"
            costs.append(
                -output.log_softmax(0)[target] if is_class else ((output - target) ** 2).sum()
            )
        found[name] = sum(costs) / len(costs)
    return found


def test_the_loss_is_the_weighted_sum_of_means_over_the_examples_that_have_each_target():
    torch.manual_seed(0)
    module = task(weights={"size": 0.25})
    logged = {}
    module.log = lambda name, value, **options: logged.update({name: value})
    made = batch(kind=torch.rand(7) < 0.5, size=torch.rand(7) < 0.5)
    made.targets["size"][~made.known["size"]] = torch.nan  # whatever stands there
    made.targets["kind"][~made.known["kind"]] = -1
    loss, expected = module.training_step(made, 0), expected_losses(module, made)
    assert_close(loss, expected["kind"] + 0.25 * expected["size"])
    assert_close(logged["train/kind/loss"], expected["kind"])
    gradients = torch.autograd.grad(loss, list(module.model.parameters()))
    wanted = torch.autograd.grad(
        expected["kind"] + 0.25 * expected["size"], list(module.model.parameters())
    )
    for ours, exact in zip(gradients, wanted, strict=True):
        assert_close(ours, exact)


@pytest.mark.parametrize("has_tensor", [True, False])
def test_a_target_that_nobody_has_costs_nothing_and_has_no_gradient(has_tensor):
    module = task()
    module.log = lambda *args, **options: None
    made = batch(size=torch.zeros(7, dtype=torch.bool))
    if not has_tensor:
        del made.targets["size"]
    loss = module.training_step(made, 0)
    loss.backward()
    assert_close(loss, expected_losses(module, batch_of_kinds(made))["kind"])
    assert all((p.grad == 0).all() for p in module.model.size.parameters())
    assert any((p.grad != 0).any() for p in module.model.kind.parameters())


def batch_of_kinds(made: Batch) -> Batch:
    """The same with some value for everyone, whose cost is not looked at."""
    return Batch(made.inputs, targets={**made.targets, "size": torch.zeros(len(made), 1)})


def test_metrics_are_named_by_head_and_count_the_examples_that_have_the_target(tmp_path):
    torch.manual_seed(0)
    module = task(weights={"size": 0.25})
    made = [batch(5, kind=torch.arange(5) < 2), batch(3, kind=torch.zeros(3, dtype=torch.bool))]
    del made[1].targets["kind"]
    run = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    [logged] = run.validate(module, DataLoader(made, batch_size=None), verbose=False)
    kind = expected_losses(module, made[0])["kind"]
    sizes = [(module.model.size(b.inputs["x"]) - b.targets["size"]).square()[:, 0] for b in made]
    answers = module.model.kind(made[0].inputs["x"][:2]).argmax(1)
    right = (answers == made[0].targets["kind"][:2]).float().mean()
    assert logged["val/kind/loss"] == pytest.approx(kind.item(), rel=1e-5)
    assert logged["val/kind/acc"] == pytest.approx(right.item())
    size = torch.cat(sizes).mean().item()
    assert logged["val/size/rmse"] == pytest.approx(size**0.5, rel=1e-5)
    assert logged["val/loss"] == pytest.approx(kind.item() + 0.25 * size, rel=1e-5)
    assert module.monitor == "kind/acc"


def test_examples_that_lack_a_target_become_a_batch_that_knows_it():
    collator = Collator({"x": Field((2,))})
    targets = [{"kind": 2, "size": None}, {"size": torch.tensor([0.5])}, {"kind": 1}]
    made = collator([Example({"x": torch.ones(2)}, t, str(n)) for n, t in enumerate(targets)])
    assert made.targets["kind"].tolist() == [2, 0, 1]
    assert made.known["kind"].tolist() == [True, False, True]
    assert made.targets["size"].tolist() == [[0.0], [0.5], [0.0]]
    assert made.known["size"].tolist() == [False, True, False]
    nobody = collator([Example({"x": torch.ones(2)}, {"kind": 1, "size": None}, "a")])
    assert nobody.targets.keys() == {"kind"}
    assert nobody.known["size"].tolist() == [False]
    assert "kind" not in nobody.known


def test_a_run_composed_of_two_targets_learns_both(compose_run):
    torch.manual_seed(0)
    base = compose_run("task=label_and_tokens", "modality@model.adapters=[image]")
    OmegaConf.set_struct(base, False)
    base.task.objectives, base.task.weights, base.model.decoder = {}, {}, {}
    config = OmegaConf.merge(base, OmegaConf.create(TWO_TARGETS))
    module = instantiate(provisional(config).task, _convert_="all")
    module.log = lambda *args, **options: None
    shade = torch.linspace(-1, 1, 12)
    made = Batch(
        inputs={"image": shade[:, None, None, None].expand(12, 1, 8, 8)},
        targets={"kind": torch.arange(12) // 4, "size": -3 * shade[:, None]},
        known={"kind": torch.arange(12) % 3 > 0, "size": torch.arange(12) % 2 > 0},
    )
    optimizer, losses = module.optimizer(module.model.parameters(), lr=1e-3), []
    for step in range(40):
        outputs = module(made)
        each = [o.loss(outputs[n], made).item() for n, o in module.heads.items()]
        losses.append(each)
        module.training_step(made, step).backward()
        optimizer.step()
        optimizer.zero_grad()
    for first, last in zip(losses[0], losses[-1], strict=True):
        assert last < 0.6 * first


def test_a_run_from_the_command_line_reports_each_head(compose_run, tmp_path):
    run_training(compose_run("task=label_and_tokens", "debug=fast", "data.batch_size=7"))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {"val/loss", "test/label/acc", "test/label/acc/image", "test/tokens/acc"} <= set(results)
    wanted = results["test/label/loss"] + 0.1 * results["test/tokens/loss"]
    assert results["test/loss"] == pytest.approx(wanted, rel=1e-5)


def test_heads_and_objectives_of_other_names_are_refused():
    module = task(objectives={"kind": SingleLabel(out_dim=3, target="kind")})
    with pytest.raises(ValueError, match=r"outputs named kind, size, .* objectives kind: give"):
        module.training_step(batch(), 0)
    with pytest.raises(ValueError, match=r"outputs named kind, size, .*one without a name"):
        task(objectives=None, objective=SingleLabel(out_dim=3)).training_step(batch(), 0)
    with pytest.raises(ValueError, match="weights names shape, but the objectives are kind, size"):
        task(weights={"shape": 1.0})
    with pytest.raises(ValueError, match="monitor names shape"):
        task(monitor="shape")
    with pytest.raises(ValueError, match=r"task\.objective, or several by name"):
        task(objectives=None)


def test_a_batch_that_says_nothing_of_a_target_is_refused():
    made = batch()
    del made.targets["size"]
    module = task()
    module.log = lambda *args, **options: None
    with pytest.raises(ValueError, match="no target 'size', which training and evaluation need"):
        module.training_step(made, 0)
