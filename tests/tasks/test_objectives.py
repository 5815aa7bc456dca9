"""Objectives against closed forms, their metrics against scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch.testing import assert_close

from perceiver.tasks import MultiLabel, Regression, SingleLabel
from perceiver.types import Batch


def asking(target, **known) -> Batch:
    return Batch(inputs={"x": torch.zeros(len(target), 1)}, targets={"target": target}, **known)


def loss(objective, outputs, target):
    """Of a model with one output (b, k) an example."""
    return objective.loss(outputs[:, None], asking(target))


def measured(objective, outputs, target, batches=(3, 1, 7)) -> dict[str, float]:
    """The objective's metrics of the test over batches of uneven sizes."""
    collection = objective.test_metrics()
    sizes = [*batches, len(target) - sum(batches)]
    for some, wanted in zip(outputs.split(sizes), target.split(sizes), strict=True):
        everybody = torch.ones(len(wanted), dtype=torch.bool)
        objective.update(collection, some[:, None], asking(wanted), everybody)
    return {name: value.item() for name, value in collection.compute().items()}


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_spreads_the_smoothed_share_over_all_classes(smoothing):
    outputs, target = torch.randn(7, 5).double(), torch.tensor([0, 4, 2, 2, 1, 3, 0])
    total = 0.0
    for row, label in zip(outputs.tolist(), target.tolist(), strict=True):
        norm = math.log(sum(math.exp(value) for value in row))
        for index, value in enumerate(row):
            share = smoothing / 5 + (1 - smoothing) * (index == label)
            total -= share * (value - norm)
    found = loss(SingleLabel(out_dim=5, label_smoothing=smoothing), outputs, target)
    assert found.item() == pytest.approx(total / 7, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bool])
def test_binary_cross_entropy_is_the_mean_over_examples_and_labels(dtype):
    outputs, target = torch.randn(7, 3).double(), torch.rand(7, 3) < 0.4
    chances = 1 / (1 + (-outputs).exp())
    expected = -torch.where(target, chances, 1 - chances).log().sum() / 21
    assert_close(loss(MultiLabel(out_dim=3), outputs, target.to(dtype)), expected)


def test_squared_error_is_the_mean_over_examples_and_values():
    outputs, target = torch.randn(7, 3).double(), torch.randn(7, 3).double()
    expected = sum((o - t) ** 2 for o, t in zip(outputs.flatten(), target.flatten(), strict=True))
    assert_close(loss(Regression(out_dim=3), outputs, target), expected / 21)


def test_half_precision_outputs_do_not_round_the_targets():
    target = torch.tensor([[1001.0], [999.0]])  # in bfloat16 both would be 1000
    found = loss(Regression(out_dim=1), torch.full((2, 1), 1000.0).bfloat16(), target)
    assert found.item() == 1.0


def test_predictions_are_probabilities_or_values_in_single_precision():
    outputs = torch.tensor([[0.0, math.log(3.0)]])
    cases = [
        (SingleLabel(out_dim=2), [0.25, 0.75]),
        (MultiLabel(out_dim=2), [0.5, 0.75]),
        (Regression(out_dim=2), [0.0, math.log(3.0)]),
    ]
    for objective, expected in cases:
        assert_close(objective.predict(outputs), torch.tensor([expected]))
        assert objective.predict(outputs.bfloat16()).dtype is torch.float32


def test_accuracy_and_macro_f1_equal_scikit_learns():
    outputs, target = torch.randn(53, 5), torch.randint(0, 5, (53,))
    values = measured(SingleLabel(out_dim=5), outputs, target)
    answers = outputs.argmax(1)
    assert values["acc"] == pytest.approx(sklearn_metrics.accuracy_score(target, answers))
    f1 = sklearn_metrics.f1_score(target, answers, average="macro")
    assert values["f1"] == pytest.approx(f1, rel=1e-6)


def test_balanced_accuracy_auroc_and_calibration_leave_out_classes_without_examples():
    outputs, target = 2 * torch.randn(53, 5), torch.randint(0, 4, (53,))  # none is of class 4
    values = measured(SingleLabel(out_dim=5), outputs, target)
    shares, answers = outputs.softmax(1), outputs.argmax(1)
    recalls = sklearn_metrics.recall_score(target, answers, average=None, labels=range(4))
    assert values["balanced_acc"] == pytest.approx(recalls.mean(), rel=1e-6)
    areas = [sklearn_metrics.roc_auc_score(target == n, shares[:, n]) for n in range(4)]
    assert values["auroc"] == pytest.approx(np.mean(areas), rel=1e-5)
    confidence, right, error = shares.amax(1), (answers == target).float(), 0.0
    for low in range(15):
        here = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if here.any():
            error += abs(confidence[here].mean() - right[here].mean()) * here.sum() / 53
    assert values["ece"] == pytest.approx(float(error), rel=1e-4)


def test_a_diverged_model_has_metrics_that_are_no_numbers_not_an_error():
    values = measured(SingleLabel(out_dim=3), torch.full((13, 3), torch.nan), torch.arange(13) % 3)
    assert values["acc"] <= 1


def test_weights_and_doubt_change_what_an_answer_costs():
    outputs, target = torch.randn(7, 5).double(), torch.tensor([0, 4, 2, 2, 1, 3, 0])
    weights = [2.0, 3.0, 5.0, 7.0, 0.5]
    p = outputs.softmax(1)[torch.arange(7), target]
    plain = -p.log() * torch.tensor(weights).double()[target]
    options = {"out_dim": 5, "class_weights": weights}
    assert_close(loss(SingleLabel(**options), outputs, target), plain.mean())
    focal = SingleLabel(**options, focal_gamma=2.0)
    assert_close(loss(focal, outputs, target), (plain * (1 - p) ** 2).mean())
    shares = torch.nn.functional.one_hot(target, 5).double()
    assert_close(loss(focal, outputs, shares), (plain * (1 - p) ** 2).mean())
    almost = SingleLabel(**options, focal_gamma=1e-9, label_smoothing=0.1)
    smooth = SingleLabel(**options, label_smoothing=0.1)
    assert_close(loss(almost, outputs, target), loss(smooth, outputs, target))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_weights": "balancd"}, "class_weights=balancd, expected balanced .* 3 numbers"),
        ({"class_weights": [1.0, 2.0]}, r"class_weights=\[1.0, 2.0\]: give 3 numbers above 0"),
        ({"class_weights": [1.0, 0.0, 2.0]}, "give 3 numbers above 0"),
        ({"focal_gamma": -1.0}, "focal_gamma=-1.0, expected 0"),
    ],
)
def test_weights_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SingleLabel(out_dim=3, **options)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_mean_average_precision_and_label_accuracy_equal_scikit_learns(dtype):
    outputs, target = torch.randn(53, 3), torch.rand(53, 3) < 0.3
    values = measured(MultiLabel(out_dim=3), outputs, target.to(dtype))
    precision = sklearn_metrics.average_precision_score(target, outputs, average="macro")
    assert values["map"] == pytest.approx(precision, rel=1e-6)
    areas = sklearn_metrics.roc_auc_score(target, outputs, average="macro")
    assert values["auroc"] == pytest.approx(areas, rel=1e-5)
    assert values["acc"] == pytest.approx(((outputs > 0) == target).double().mean().item())


@pytest.mark.parametrize("k", [1, 3])
def test_mae_rmse_and_r2_equal_scikit_learns(k):
    target = torch.randn(53, k) * torch.arange(1, k + 1)
    outputs = target + torch.randn(53, k)
    values = measured(Regression(out_dim=k), outputs, target)
    target, outputs = target.numpy(), outputs.numpy()
    expected = {
        "mae": sklearn_metrics.mean_absolute_error(target, outputs),
        "rmse": math.sqrt(np.square(target - outputs).mean()),
        "r2": sklearn_metrics.r2_score(target, outputs),
    }
    assert values == pytest.approx(expected, rel=1e-5)


def test_r2_of_a_single_example_is_not_a_number():
    collection = Regression(out_dim=3).metrics()
    collection.update(torch.ones(1, 3), torch.zeros(1, 3))
    values = collection.compute()
    assert values["r2"].isnan()
    assert values["mae"] == 1


def test_the_monitored_metric_is_a_fresh_one():
    objective = SingleLabel(out_dim=3, monitor="f1")
    first, second = objective.monitored(), objective.monitored()
    assert type(first).__name__ == "MulticlassF1Score"
    assert first is not second


@pytest.mark.parametrize("label", [5, -1])
def test_a_label_out_of_range_is_named(label):
    with pytest.raises(ValueError, match=f"label {label} is out of range for 5 classes"):
        loss(SingleLabel(out_dim=5), torch.randn(3, 5), torch.tensor([0, label, 4]))


def test_targets_of_another_kind_are_refused():
    single, multi, values = SingleLabel(out_dim=3), MultiLabel(out_dim=3), Regression(out_dim=1)
    with pytest.raises(ValueError, match=r"\(2, 3\) and type torch.int64.*one class index"):
        loss(single, torch.randn(2, 3), torch.zeros(2, 3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"\(2,\) and type torch.float32"):
        loss(single, torch.randn(2, 3), torch.zeros(2))
    with pytest.raises(
        ValueError, match=r"\(2,\), outputs \(2, 3\): give 0 or 1 for each of the 3"
    ):
        loss(multi, torch.randn(2, 3), torch.zeros(2))
    with pytest.raises(ValueError, match="hold 2: give 0 or 1"):
        loss(multi, torch.randn(2, 3), torch.tensor([[0, 1, 0], [1, 2, 0]]))
    with pytest.raises(ValueError, match=r"\(2,\), outputs \(2, 1\): give 1 values an example"):
        loss(values, torch.randn(2, 1), torch.zeros(2))


def test_a_model_that_gives_other_outputs_is_refused(unchecked):
    objective = SingleLabel(out_dim=3)
    outputs = torch.randn(2, 1, 3)
    assert_close(objective.single_output(outputs), outputs[:, 0], rtol=0, atol=0)
    for wrong in ((2, 2, 3), (2, 1, 5), (2, 3)):
        with pytest.raises(ValueError, match=rf"\(batch, 1, 3\); the model gives \({wrong[0]}, "):
            objective.single_output(torch.randn(*wrong))


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match=r"monitor=mae .* metric of acc, balanced_acc, f1"):
        SingleLabel(out_dim=3, monitor="mae")
    with pytest.raises(ValueError, match=r"mode=best: .* max or min"):
        Regression(out_dim=3, mode="best")
    with pytest.raises(ValueError, match=r"label_smoothing=1\.5 must lie"):
        SingleLabel(out_dim=3, label_smoothing=1.5)


def test_cross_entropy_takes_shares_of_classes():
    outputs = torch.randn(7, 5).double()
    shares = torch.rand(7, 5).softmax(1)
    objective = SingleLabel(out_dim=5)
    chances = outputs.exp() / outputs.exp().sum(1, keepdim=True)
    assert_close(loss(objective, outputs, shares), -(shares * chances.log()).sum() / 7)
    # All of one class is that class.
    target = torch.tensor([0, 4, 2, 2, 1, 3, 0])
    whole = torch.eye(5)[target]
    assert_close(loss(objective, outputs, whole), loss(objective, outputs, target))
    assert objective.metric_target(whole).tolist() == target.tolist()
    smooth = SingleLabel(out_dim=5, label_smoothing=0.1)
    assert_close(loss(smooth, outputs, whole), loss(smooth, outputs, target))


def test_a_mixed_target_weighs_the_losses_of_both_classes():
    outputs, objective = torch.randn(1, 5), SingleLabel(out_dim=5)
    one, other = (loss(objective, outputs, torch.tensor([label])) for label in (1, 3))
    mixed = torch.tensor([[0.0, 0.3, 0.0, 0.7, 0.0]])
    assert_close(loss(objective, outputs, mixed), 0.3 * one + 0.7 * other)


@pytest.mark.parametrize("wrong", [[0.5, 0.4], [1.5, -0.5]])
def test_shares_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match="sum to 1"):
        loss(SingleLabel(out_dim=2), torch.zeros(1, 2), torch.tensor([wrong]))


def test_binary_cross_entropy_takes_shares_and_metrics_round_them():
    outputs, objective = torch.randn(1, 2), MultiLabel(out_dim=2)
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    mixed = loss(objective, outputs, 0.3 * one + 0.7 * other)
    assert_close(mixed, 0.3 * loss(objective, outputs, one) + 0.7 * loss(objective, outputs, other))
    assert objective.metric_target(0.3 * one + 0.7 * other).tolist() == [[1, 1]]
