"""A split's metrics are those of all its examples, however it was cut up."""

import pytest
import torch

from perceiver.tasks import MultiLabel, Regression, SingleLabel
from perceiver.tasks.metrics import SplitMetrics
from perceiver.types import Batch


def asking(target, **options) -> Batch:
    return Batch(inputs={"x": torch.zeros(len(target), 1)}, targets={"target": target}, **options)


def filled(objective, outputs, target, sizes, subset_of=None) -> dict[str, float]:
    """Over batches of the given sizes; subset "x" holds the examples that `subset_of` flags."""
    metrics = SplitMetrics(objective=objective, subsets=["x"])
    flags = torch.zeros(len(target)).bool() if subset_of is None else subset_of
    for o, t, some in zip(*(v.split(sizes) for v in (outputs, target, flags)), strict=True):
        metrics.update(objective, o[:, None], asking(t))
        metrics.update_subset("x", objective, o[:, None], asking(t), some)
    return {name: value.item() for name, value in metrics.compute().items()}


def test_metrics_are_exact_under_uneven_batches():
    objective = SingleLabel(out_dim=5)
    outputs, target = torch.randn(23, 5), torch.randint(0, 5, (23,))
    some = torch.rand(23) < 0.5
    right = outputs.argmax(1) == target
    values = filled(objective, outputs, target, [2, 13, 1, 7], some)
    assert values["loss"] == pytest.approx(
        objective.loss(outputs[:, None], asking(target)).item(), rel=1e-6
    )
    assert values["acc"] == pytest.approx(right.double().mean().item())
    assert values["acc/x"] == pytest.approx(right[some].double().mean().item())
    assert values == pytest.approx(filled(objective, outputs, target, [23], some), rel=1e-6)


@pytest.mark.parametrize(
    ("objective", "target"),
    [
        (SingleLabel(out_dim=3), torch.tensor([0, 1, 2, 0, 1])),
        (MultiLabel(out_dim=3), torch.eye(5, 3)),
        (Regression(out_dim=3), torch.eye(5, 3)),
        (Regression(out_dim=3, monitor="r2", mode="max"), torch.eye(5, 3)),
    ],
    ids=["single", "multi", "mae", "r2"],
)
@pytest.mark.filterwarnings("error::UserWarning")
def test_a_subset_that_no_example_has_any_of_is_left_out(objective, target):
    values = filled(objective, torch.randn(5, 3), target, [2, 3])
    assert f"{objective.monitor}/x" not in values
    assert {"loss", objective.monitor} <= set(values)


def test_a_batch_without_examples_of_the_subset_counts_for_nothing():
    outputs, target = torch.eye(3)[[0, 1, 0]], torch.tensor([0, 1, 2])
    some = torch.tensor([True, False, True])
    values = filled(SingleLabel(out_dim=3), outputs, target, [1, 1, 1], some)
    assert values["acc/x"] == 0.5


def test_an_epoch_knows_nothing_of_the_one_before():
    objective = SingleLabel(out_dim=3)
    metrics = SplitMetrics(objective=objective, subsets=["x"])
    for right in (True, False, True):
        target = torch.tensor([0, 1, 2, 2, 2])
        outputs = 9.0 * torch.eye(3)[target if right else (target + 1) % 3]
        for part in (slice(0, 2), slice(2, 5)):
            o, t = outputs[part], target[part]
            metrics.update(objective, o[:, None], asking(t))
            first = torch.arange(len(t)) == 0
            metrics.update_subset("x", objective, o[:, None], asking(t), first)
        values = metrics.compute()
        assert values["acc"] == values["f1"] == values["acc/x"] == float(right)
        assert (values["loss"] < 0.01) == right
        metrics.reset()
    # An epoch without the subset does not report that of the last.
    metrics.update(objective, torch.eye(3)[:, None], asking(torch.arange(3)))
    assert "acc/x" not in metrics.compute()


def test_a_loss_that_is_not_a_number_is_reported_as_such():
    objective = Regression(out_dim=1)
    metrics = SplitMetrics(objective=objective, subsets=[])
    metrics.update(objective, torch.ones(2, 1, 1), asking(torch.ones(2, 1)))
    metrics.update(objective, torch.full((3, 1, 1), torch.nan), asking(torch.ones(3, 1)))
    assert metrics.compute()["loss"].isnan()


def test_sums_of_a_model_in_half_precision_are_in_full():
    torch.manual_seed(0)
    objective = SingleLabel(out_dim=3)
    metrics = SplitMetrics(objective=objective, subsets=["a"]).to(torch.bfloat16)
    losses, everybody = [], torch.ones(64, dtype=torch.bool)
    for _ in range(1000):
        logits, target = torch.randn(64, 3).bfloat16(), torch.randint(3, (64,))
        losses.append(-logits.double().log_softmax(1)[torch.arange(64), target])
        metrics.update(objective, logits[:, None], asking(target))
        metrics.update_subset("a", objective, logits[:, None], asking(target), everybody)
    found = metrics.compute()
    assert found["loss"] == pytest.approx(torch.cat(losses).mean().item(), rel=1e-4)
    assert found["acc"] == pytest.approx(1 / 3, abs=0.02)


def test_parts_are_reported_apart_with_all_metrics():
    objective = Regression(out_dim=1)
    metrics = SplitMetrics(objective=objective, subsets=[], parts=["far", "near"])
    metrics.update(objective, torch.ones(2, 1, 1), asking(torch.zeros(2, 1)))
    metrics.update(objective, torch.ones(3, 1, 1), asking(torch.full((3, 1), 3.0), part="far"))
    values = {name: value.item() for name, value in metrics.compute().items()}
    assert values["loss"] == values["mae"] == 1
    assert values["mae/far"] == values["rmse/far"] == 2
    assert not any("near" in name for name in values)
    with pytest.raises(ValueError, match="part 'high', but the task reports far, near apart"):
        metrics.update(objective, torch.ones(2, 1, 1), asking(torch.zeros(2, 1), part="high"))


def test_examples_without_the_target_count_for_nothing():
    objective = SingleLabel(out_dim=3)
    metrics = SplitMetrics(objective=objective, subsets=["x"])
    outputs, target = 9.0 * torch.eye(3)[[0, 1, 2, 0]], torch.tensor([0, 1, 0, 7])
    known = {"target": torch.tensor([True, True, True, False])}
    everybody = torch.ones(4, dtype=torch.bool)
    made = asking(target, known=known)
    metrics.update(objective, outputs[:, None], made)
    metrics.update_subset("x", objective, outputs[:, None], made, everybody)
    values = metrics.compute()
    assert values["acc"].item() == values["acc/x"].item() == pytest.approx(2 / 3)
    assert values["loss"].item() == pytest.approx(9 / 3, rel=1e-3)
