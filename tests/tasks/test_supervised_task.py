"""The LightningModule under a real Trainer: what it trains, logs and saves."""

import math
from dataclasses import replace
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.data import DataLoader

from perceiver.tasks import SingleLabel, SupervisedTask
from perceiver.tasks.schedules import cosine
from perceiver.types import Batch

MODALITIES = ["image", "text"]
CLASSES = 3


class SumOfLinears(nn.Module):
    """The simplest multimodal model: logits add up over what is present."""

    def __init__(self) -> None:
        super().__init__()
        self.linears = nn.ModuleDict({name: nn.Linear(5, CLASSES) for name in MODALITIES})

    def forward(self, inputs, masks, present) -> Tensor:
        total = 0.0
        for name, values in inputs.items():
            here = present.get(name, torch.ones(len(values)).bool())
            total = total + self.linears[name](values) * here[:, None]
        return total[:, None]


def batches(*sizes: int, lacking: bool = True) -> list[Batch]:
    made = []
    for size in sizes:
        text = torch.rand(size) < 0.6
        made.append(
            Batch(
                inputs={name: torch.randn(size, 5) for name in MODALITIES},
                present={"text": text, "image": ~text | (torch.rand(size) < 0.5)}
                if lacking
                else {},
                targets={"target": torch.randint(0, CLASSES, (size,))},
            )
        )
    return made


def loader(made: list[Batch]) -> DataLoader:
    return DataLoader(made, batch_size=None)


def task(**options) -> SupervisedTask:
    settings = {
        "model": SumOfLinears(),
        "objective": SingleLabel(out_dim=CLASSES),
        "optimizer": partial(torch.optim.SGD, lr=0.1),
        "modalities": MODALITIES,
    }
    return SupervisedTask(**(settings | options))


def trainer(tmp_path, **options) -> pl.Trainer:
    settings = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": tmp_path,
    }
    return pl.Trainer(**(settings | options))


def expected_metrics(module: SupervisedTask, made: list[Batch], subsets) -> dict[str, float]:
    """Example by example."""
    losses, right, right_of = [], [], {subset: [] for subset in subsets}
    for batch in made:
        for row in range(len(batch)):
            has = [m for m in MODALITIES if bool(batch.present.get(m, torch.ones(99))[row])]
            label = int(batch.targets["target"][row])

            def logits(names, batch=batch, row=row):
                linears = module.model.linears
                return sum(linears[name](batch.inputs[name][row]) for name in names)

            whole = logits(has)
            losses.append(-whole.log_softmax(0)[label].item())
            right.append(int(whole.argmax()) == label)
            for subset, list_ in right_of.items():
                if some := [m for m in subset if m in has]:
                    list_.append(int(logits(some).argmax()) == label)
    accuracies = {"/".join(("acc", "+".join(s))): sum(r) / len(r) for s, r in right_of.items()}
    return {"loss": sum(losses) / len(losses), "acc": sum(right) / len(right)} | accuracies


def test_one_step_is_one_step_of_the_optimiser_on_the_loss(tmp_path):
    module, made = task(), batches(7)
    before = {name: p.detach().clone() for name, p in module.model.named_parameters()}
    outputs = module.model(made[0].inputs, {}, made[0].present)[:, 0]
    loss = -outputs.log_softmax(1)[torch.arange(7), made[0].targets["target"]].mean()
    gradients = torch.autograd.grad(loss, list(module.model.parameters()))
    fit = trainer(tmp_path)
    fit.fit(module, loader(made))
    for (name, after), gradient in zip(module.model.named_parameters(), gradients, strict=True):
        assert_close(after.detach(), before[name] - 0.1 * gradient)
    assert_close(fit.callback_metrics["train/loss"], loss.detach())


@pytest.mark.parametrize("lacking", [True, False])
def test_validation_reports_the_whole_and_single_modalities_exactly(tmp_path, lacking):
    module, made = (
        task(optimizer=partial(torch.optim.SGD, lr=0.0)),
        batches(11, 2, 5, lacking=lacking),
    )
    expected = expected_metrics(module, made, [("image",), ("text",)])
    fit = trainer(tmp_path)
    fit.fit(module, loader(batches(3)), loader(made))
    logged = {k: v.item() for k, v in fit.callback_metrics.items() if k.startswith("val/")}
    assert logged.pop("val/f1") >= 0
    assert logged.pop("val/balanced_acc") >= 0
    score = logged["val/acc"] + math.exp(-logged["val/loss"]) / math.sqrt(18)
    assert logged.pop("val/score") == pytest.approx(score, rel=1e-6)
    assert logged == pytest.approx({f"val/{k}": v for k, v in expected.items()}, rel=1e-5)


def test_the_test_reports_every_proper_subset_in_the_order_of_the_modalities(tmp_path):
    module, made = task(test_subsets="all"), batches(11, 2, 5)
    expected = expected_metrics(module, made, [("image",), ("text",)])
    logged = dict(trainer(tmp_path).test(module, loader(made), verbose=False)[0])
    named = [name for name in logged if name.startswith("test/acc")]
    assert named == ["test/acc", "test/acc/image", "test/acc/text"]
    found = {f"test/{k}": logged.get(f"test/{k}") for k in expected}
    assert found == pytest.approx({f"test/{k}": v for k, v in expected.items()}, rel=1e-5)


def test_the_test_reports_subsets_on_the_same_examples_too_and_how_many_there_are(tmp_path):
    module, made = task(test_subsets="all"), batches(11, 2, 5)
    logged = dict(trainer(tmp_path).test(module, loader(made), verbose=False)[0])
    have = [
        [bool(batch.present.get(m, torch.ones(99))[row]) for m in MODALITIES]
        for batch in made
        for row in range(len(batch))
    ]
    assert logged["test/examples"] == 18
    for column, name in enumerate(MODALITIES):
        assert logged[f"test/examples/{name}"] == sum(row[column] for row in have)
    whole = [
        replace(batch, inputs={n: v[rows] for n, v in batch.inputs.items()}, present={})
        for batch in made
        if (rows := batch.has_all()).any()
    ]
    for batch, full in zip([b for b in made if b.has_all().any()], whole, strict=True):
        full.targets = {"target": batch.targets["target"][batch.has_all()]}
    expected = expected_metrics(module, whole, [("image",), ("text",)])
    assert 0 < logged["test/complete/examples"] == sum(map(all, have)) < 18
    for name in ("acc", "acc/image", "acc/text"):
        assert logged[f"test/complete/{name}"] == pytest.approx(expected[name], rel=1e-5)


def test_subsets_on_the_same_examples_are_left_out_where_all_have_everything(tmp_path):
    made = batches(11, 2, lacking=False)
    logged = trainer(tmp_path).test(task(test_subsets="all"), loader(made), verbose=False)[0]
    assert logged["test/examples"] == logged["test/examples/text"] == 13
    assert not any("complete" in name for name in logged)


def test_one_validation_knows_nothing_of_the_one_before(tmp_path):
    module, run = task(), trainer(tmp_path)
    for made in (batches(11, 2), batches(5, 7)):
        expected = expected_metrics(module, made, [])
        (logged,) = run.validate(module, loader(made), verbose=False)
        assert logged["val/loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert logged["val/acc"] == pytest.approx(expected["acc"], rel=1e-5)


def test_subsets_may_be_left_out(tmp_path):
    module = task(val_subsets="none", test_subsets="none")
    logged = trainer(tmp_path).test(module, loader(batches(3)), verbose=False)[0]
    assert not any(name.endswith(("image", "text")) or "complete" in name for name in logged)


def test_predictions_are_probabilities_in_the_order_of_the_data(tmp_path):
    module, made = task(), batches(3, 5)
    for batch in made:
        batch.targets = {}
    answers = trainer(tmp_path).predict(module, loader(made))
    for batch, answer in zip(made, answers, strict=True):
        logits = module.model(batch.inputs, {}, batch.present)[:, 0]
        assert_close(answer, logits.detach().exp() / logits.detach().exp().sum(1, keepdim=True))


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 9), (2, 6)])
def test_a_schedule_spans_the_whole_run_step_by_step(tmp_path, accumulate, steps):
    totals = []

    def recording(optimizer, total_steps):
        totals.append(total_steps)
        return cosine(optimizer, total_steps)

    fit = trainer(tmp_path, max_epochs=3, accumulate_grad_batches=accumulate)
    fit.fit(task(scheduler=recording), loader(batches(2, 2, 2)))
    assert totals == [steps]
    assert fit.global_step == steps
    assert fit.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


def test_a_schedule_of_an_endless_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"set trainer\.max_epochs or trainer\.max_steps"):
        trainer(tmp_path, max_epochs=-1).fit(task(scheduler=cosine), loader(batches(2)))


def test_weight_decay_spares_biases(tmp_path):
    module = task(optimizer=partial(torch.optim.AdamW, lr=0.1, weight_decay=0.3))
    trainer(tmp_path).fit(module, loader(batches(2)))
    groups = module.optimizers().param_groups
    assert [group["weight_decay"] for group in groups] == [0.3, 0]
    assert [{p.dim() for p in group["params"]} for group in groups] == [{2}, {1}]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped_for_a_fused_optimiser_in_full_and_mixed_precision(
    tmp_path, precision, algorithm
):
    module = task(optimizer=partial(torch.optim.SGD, lr=1.0, fused=True))
    before = torch.cat([p.detach().flatten() for p in module.model.parameters()])
    run = trainer(
        tmp_path,
        precision=precision,
        gradient_clip_val=0.01,
        gradient_clip_algorithm=algorithm,
    )
    run.fit(module, loader(batches(7)))
    moved = torch.cat([p.detach().flatten() for p in module.model.parameters()]) - before
    size = moved.norm() if algorithm == "norm" else moved.abs().max()
    assert size.item() == pytest.approx(0.01, rel=1e-3)


def test_a_checkpoint_is_plain_data_with_the_runs_config(tmp_path):
    module = task(scheduler=cosine)
    module.run_config = {"model": {"dim": 7}, "names": ["a", "b"], "rate": 0.1, "none": None}
    fit = trainer(tmp_path, enable_checkpointing=True)
    fit.fit(module, loader(batches(5)), loader(batches(5)))
    path = tmp_path / "saved.ckpt"
    fit.save_checkpoint(path)
    saved = torch.load(path, weights_only=True)
    assert saved["run_config"] == module.run_config
    assert set(saved["state_dict"]) == {f"model.{name}" for name in module.model.state_dict()}
    other = task(scheduler=cosine)
    trainer(tmp_path, max_epochs=2).fit(
        other, loader(batches(5)), ckpt_path=path, weights_only=True
    )
    assert other.trainer.global_step == 2  # resumed after the first


def test_a_checkpoint_without_a_config_says_nothing_of_one(tmp_path):
    fit = trainer(tmp_path)
    fit.fit(task(), loader(batches(5)))
    fit.save_checkpoint(tmp_path / "saved.ckpt")
    assert "run_config" not in torch.load(tmp_path / "saved.ckpt", weights_only=True)


def test_training_without_targets_is_refused(tmp_path):
    made = batches(3)
    made[0].targets = {}
    with pytest.raises(ValueError, match="the batch has no target"):
        trainer(tmp_path).fit(task(), loader(made))
