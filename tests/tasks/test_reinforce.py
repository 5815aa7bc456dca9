"""Attention that samples, trained by the task: unbiased by enumeration, and better for it."""

from __future__ import annotations

import copy
import itertools
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from perceiver.attention import Attention, ReinforceLoss, SampledChoices
from perceiver.tasks import MultiLabel, Regression, SingleLabel, SupervisedTask
from perceiver.types import Batch

QUERIES, KEYS, WIDTH, CLASSES = 2, 3, 5, 4


def sampling(**options) -> Attention:
    settings = {
        "normaliser": "reinforce",
        "heads": "identity",
        "options": {"reinforce": {"soft_probability": 0.0}},
    }
    return Attention(WIDTH, **(settings | options))


class Reader(nn.Module):
    """Queries sample keys, once or twice, and their mean is classified."""

    def __init__(self, *layers: Attention, out_dim: int = CLASSES) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(QUERIES, WIDTH))
        self.layers = nn.ModuleList(layers)
        self.values = nn.Linear(WIDTH, WIDTH)
        self.linear = nn.Linear(WIDTH, out_dim)

    def forward(self, inputs, masks, present):
        keys = self.values(inputs["x"])
        read = self.queries.expand(len(keys), -1, -1)
        for layer in self.layers:
            read = read + layer(read, keys).out
        return self.linear(read.tanh().mean(1, keepdim=True))


def task(model: nn.Module, objective=None, **options) -> SupervisedTask:
    return SupervisedTask(
        model=model,
        objective=objective or SingleLabel(out_dim=CLASSES),
        optimizer=partial(torch.optim.Adam, lr=0.03),
        modalities=["x"],
        **options,
    ).double()


@pytest.fixture
def choose(monkeypatch):
    """choose([(key of query 0, …) of the first layer, …]): the samples to come."""

    def chosen(*layers):
        queue = list(layers)

        def noise(scores):
            keys = torch.tensor(queue.pop(0))
            return 1e6 * nn.functional.one_hot(keys, KEYS).to(scores).expand_as(scores)

        monkeypatch.setattr("perceiver.attention.normalisers.hard.gumbel_like", noise)

    return chosen


TARGETS = {
    "class": (lambda: SingleLabel(out_dim=CLASSES, label_smoothing=0.1), torch.tensor([2])),
    "labels": (lambda: MultiLabel(out_dim=CLASSES), torch.tensor([[1, 0, 0, 1]])),
    "values": (lambda: Regression(out_dim=CLASSES), torch.randn(1, CLASSES).double()),
}


@pytest.mark.parametrize("baseline", [0.0, -7.3])
@pytest.mark.parametrize(("kind", "layers"), [*((kind, 1) for kind in TARGETS), ("class", 2)])
def test_the_training_step_has_the_gradient_of_the_expected_loss(choose, kind, layers, baseline):
    """Σ_s p(s) (its gradient at s) is the gradient of Σ_s p(s) loss(s), over all samples s."""
    objective, target = TARGETS[kind]
    module = task(
        Reader(*(sampling() for _ in range(layers))),
        objective(),
        reinforce=ReinforceLoss(entropy_weight=0.0),
    )
    module.log = lambda *args, **options: None
    batch = Batch(inputs={"x": torch.randn(1, KEYS, WIDTH).double()}, targets={"target": target})
    parameters = list(module.model.parameters())
    expected, average, total = 0.0, [torch.zeros_like(p) for p in parameters], 0.0
    one_layer = itertools.product(range(KEYS), repeat=QUERIES)
    for samples in itertools.product(list(one_layer), repeat=layers):
        choose(*samples)
        with module.choices as choices:
            loss = module.objective.loss(module(batch), batch)
        chance = sum(aux.log_prob.sum() for aux in choices).exp()
        expected, total = expected + chance * loss, total + chance.item()
        choose(*samples)
        module.reinforce.baseline.value.fill_(baseline)
        gradients = torch.autograd.grad(module.training_step(batch, 0), parameters)
        average = [a + chance.detach() * g for a, g in zip(average, gradients, strict=True)]
    assert total == pytest.approx(1)
    wanted = torch.autograd.grad(expected, parameters)
    assert max(gradient.abs().max() for gradient in wanted) > 0.01
    for ours, exact in zip(average, wanted, strict=True):
        torch.testing.assert_close(ours, exact, rtol=0, atol=1e-12)


def test_the_entropy_bonus_has_its_closed_gradient(choose):
    """dH/dz_j = −α_j (log α_j + H), and z = K q/√d."""
    keys = torch.randn(1, KEYS, WIDTH).double()
    batch = Batch(inputs={"x": keys}, targets={"target": torch.tensor([2])})
    model, gradients = Reader(sampling()), []
    for weight in (0.0, 0.3):
        module = task(model, reinforce=ReinforceLoss(reward_weight=0.0, entropy_weight=weight))
        module.log = lambda *args, **options: None
        choose((0, 2))
        [gradient] = torch.autograd.grad(module.training_step(batch, 0), [model.queries])
        gradients.append(gradient)
    model.values.double()
    projected = model.values(keys)[0].detach()
    alpha = (model.queries.detach() @ projected.T / WIDTH**0.5).softmax(-1)
    entropy = -(alpha * alpha.log()).sum(-1, keepdim=True)
    of_scores = -alpha * (alpha.log() + entropy)
    wanted = -0.3 * of_scores @ projected / WIDTH**0.5
    torch.testing.assert_close(gradients[1] - gradients[0], wanted, rtol=0, atol=1e-12)


def needle(size: int) -> Batch:
    """Seven keys with a class each; the answer is that of the one that bears a mark."""
    keys = torch.zeros(size, 7, WIDTH)
    classes, marked = torch.randint(0, CLASSES, (size, 7)), torch.randint(0, 7, (size,))
    keys.scatter_(2, classes[..., None], 1.0)
    keys[torch.arange(size), marked, CLASSES] = 1.0
    return Batch(inputs={"x": keys}, targets={"target": classes[torch.arange(size), marked]})


class Finder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, WIDTH))
        # Soft attention for some examples would train the scores without REINFORCE.
        self.attention = sampling(
            score="additive", options={"reinforce": {"soft_probability": 0.0}}
        )
        self.linear = nn.Linear(WIDTH, CLASSES)

    def forward(self, inputs, masks, present):
        keys = inputs["x"]
        return self.linear(self.attention(self.query.expand(len(keys), -1, -1), keys).out)


def accuracy_after_training(tmp_path, **options) -> float:
    torch.manual_seed(5)
    module = task(Finder(), **options).float()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, DataLoader([needle(64) for _ in range(250)], batch_size=None))
    assert ("train/reinforce" in trainer.callback_metrics) == bool(options)
    test = needle(500)
    module.eval()
    return (module(test)[:, 0].argmax(-1) == test.targets["target"]).float().mean().item()


@pytest.mark.slow
def test_trained_attention_finds_what_untrained_attention_does_not(tmp_path):
    trained = accuracy_after_training(tmp_path, reinforce=ReinforceLoss(entropy_weight=0.01))
    nothing = ReinforceLoss(reward_weight=0.0, entropy_weight=0.0)
    untrained = accuracy_after_training(tmp_path, reinforce=nothing)
    assert trained > 0.95
    assert untrained < 0.6


def test_every_sampling_layer_is_found_and_no_other():
    layers = [sampling(), Attention(WIDTH), sampling()]
    model = Reader(*layers)
    choices = SampledChoices(model)
    inputs = {"x": torch.randn(3, KEYS, WIDTH)}
    with choices as found:
        model(inputs, {}, {})
        model(inputs, {}, {})
    assert [aux.log_prob.shape for aux in found] == [(3, 1, QUERIES)] * 4
    model(inputs, {}, {})
    assert len(found) == 4
    assert choices.count == 2


def test_a_model_that_samples_nothing_is_trained_as_ever():
    module = task(Reader(Attention(WIDTH)), reinforce=ReinforceLoss())
    assert not module.choices
    assert module.reinforce is None
    assert not any(name.startswith("reinforce") for name in module.state_dict())
    assert all(not layer._forward_hooks for layer in module.modules())


def test_a_copy_of_a_task_finds_its_own_choices():
    module = task(Reader(sampling(), sampling()))
    inputs = {"x": torch.randn(3, KEYS, WIDTH).double()}
    other = copy.deepcopy(module)
    with other.choices as copied, module.choices as found:
        other.model(inputs, {}, {})
    assert (len(copied), len(found)) == (2, 0)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_baseline_that_cannot_run_is_refused(decay):
    with pytest.raises(ValueError, match=r"baseline_decay=.* must lie in \[0, 1\)"):
        ReinforceLoss(baseline_decay=decay)
