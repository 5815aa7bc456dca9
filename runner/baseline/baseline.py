"""The most frequent class or the mean, and a linear model, on the splits of a run."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.core.datamodule import MultimodalDataModule
from perceiver.tasks.objectives import Objective
from perceiver.types import TargetKind
from runner.baseline.features import Features
from runner.baseline.reading import Read, read

KINDS = (TargetKind.CLASS, TargetKind.LABELS, TargetKind.VALUES)
_EXAMPLES = 20_000  # of each split, at most
_SECONDS = {"train": 12.0, "val": 4.0, "test": 6.0}  # of reading, at most
_WORK = {"dense": 6e7, "sparse": 1.5e7}  # examples × features that are not 0 × classes, at most
_LEAST = 5  # examples a class that a linear model is fitted to
_STRENGTHS = (1.0, 4.0, 16.0, 64.0)  # of logistic regression: 1 / what its weights cost
_COSTS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of ridge regression's weights, an example


@dataclass
class Baselines:
    """What simple models reach.

    Args:
        values: "baseline/majority/acc", "baseline/linear/acc", …: the metrics of the objective on
            the test split.
        labels: "majority", "mean" or "linear" → what it is called in a table.
        examples: the same → the test examples that it was measured on.
        notes: what people should know, a line each.
        seconds: that all took.
    """

    values: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    examples: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def rows(self, metric: str) -> dict[str, tuple[str, int]]:
        """The names of a metric's values → what a table calls them, and of how many examples."""
        return {
            f"baseline/{name}/{metric}": (label, self.examples[name])
            for name, label in self.labels.items()
        }


def fit_baselines(datamodule: MultimodalDataModule, objective: Objective) -> Baselines:
    """Fit on the training split, choose by the validation split, measure on the test split.

    Args:
        datamodule: set up, with a test split.
        objective: whose metrics are reported; its targets are those of the data.
    """
    start, found = time.monotonic(), Baselines()
    with _undisturbed():
        _largest_or_mean(found, datamodule, objective)
        try:
            _linear(found, datamodule, objective)
        except Exception as error:  # the run's own results must not be lost to it
            found.notes.append(f"no linear baseline: {error}")
    found.seconds = round(time.monotonic() - start, 2)
    found.notes.append(f"the baselines took {found.seconds:.1f} s (baseline=false leaves them out)")
    return found


def _largest_or_mean(
    found: Baselines, datamodule: MultimodalDataModule, objective: Objective
) -> None:
    """Adds what one answer to everything reaches."""
    train, test = (datamodule.splits[name].source.targets for name in ("train", "test"))
    name = "mean" if objective.targets == TargetKind.VALUES else "majority"
    found.labels[name] = _called(train, test, objective, datamodule.class_names)
    _add(found, name, objective, _constant(train, objective).expand(len(test), -1), test)


def _constant(targets: Tensor, objective: Objective) -> Tensor:
    """(k,) the prediction for everybody: shares of the classes, or means."""
    if objective.targets == TargetKind.CLASS:
        counts = targets.bincount(minlength=objective.out_dim)
        return counts.double() / counts.sum()
    return targets.double().mean(0)


def _called(train: Tensor, test: Tensor, objective: Objective, names: list[str]) -> str:
    if objective.targets == TargetKind.VALUES:
        return "mean of train"
    if objective.targets == TargetKind.LABELS:
        return "share of each label in train"
    largest = int(train.bincount(minlength=objective.out_dim).argmax())
    share = (test == largest).double().mean().item()
    return f"always {names[largest][:30]} ({share:.1%} of test)"


def _linear(found: Baselines, datamodule: MultimodalDataModule, objective: Objective) -> None:
    """Adds what a linear model on simple features reaches."""
    splits = datamodule.splits
    parts = {
        name: read(splits[name], most=_EXAMPLES, seconds=_SECONDS[name])
        for name in ("train", "val", "test")
        if name in splits
    }
    train, test = parts["train"], parts["test"]
    columns = {n: Features(n, splits["train"].readers.get(n)) for n in datamodule.modalities}
    fitted = _joined([columns[n].fit(train.inputs[n]) for n in columns])
    width = 1 if objective.targets == TargetKind.VALUES else objective.out_dim
    kind = "dense" if isinstance(fitted, np.ndarray) else "sparse"
    entries = fitted.size / max(len(train), 1)  # of sparse ones, those that are not 0
    room = int(_WORK[kind] / max(entries * width, 1))
    if not fitted.shape[1] or min(room, len(train)) < min(_LEAST * width, len(train)):
        found.notes.append(
            f"no linear baseline: {width:,} classes of {fitted.shape[1]:,} features take too long"
        )
        return
    rows = slice(min(room, len(train)))
    features = {n: _transformed(columns, part) for n, part in parts.items() if n != "train"}
    chosen = _best_model(
        fitted[rows],
        train.targets[rows],
        held_out=(features.get("val"), parts["val"].targets) if "val" in parts else None,
        objective=objective,
    )
    used = len(train.targets[rows])
    found.labels["linear"] = "linear model on simple features"
    if used < train.total:
        found.notes.append(f"the linear model is fitted to {used:,} of {train.total:,} examples")
    if len(test) < test.total:
        found.notes.append(
            f"the linear model is measured on {len(test):,} of {test.total:,} test examples"
        )
    _add(found, "linear", objective, chosen(features["test"]), test.targets)


def _joined(blocks: list[Any]) -> Any:
    """The features of all modalities, dense if all are."""
    from scipy import sparse

    if all(isinstance(block, np.ndarray) for block in blocks):
        return np.hstack(blocks)
    return sparse.hstack(blocks, format="csr")


def _transformed(columns: Mapping[str, Features], part: Read) -> Any:
    return _joined([columns[name].transform(part.inputs[name]) for name in columns])


def _best_model(
    features: Any, targets: Tensor, *, held_out: tuple[Any, Tensor] | None, objective: Objective
) -> Any:
    """Predicts (n, k); of several strengths the one that does best on `held_out`."""
    best, best_score = None, -np.inf
    for predict in _models(features, targets, objective):
        if held_out is None:
            return predict
        values = _measured(objective, predict(held_out[0]), held_out[1])
        score = values[objective.monitor] * (1 if objective.mode == "max" else -1)
        if best is None or score > best_score:
            best, best_score = predict, score
    return best


def _models(features: Any, targets: Tensor, objective: Objective) -> Iterator[Any]:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier

    wanted = targets.numpy()
    if objective.targets == TargetKind.VALUES:
        centre, spread = wanted.mean(0), wanted.std(0)
        spread = np.where(spread > 0, spread, 1.0)
        for cost in _COSTS:
            ridge = Ridge(alpha=cost * len(wanted) / 100).fit(features, (wanted - centre) / spread)
            yield lambda x, m=ridge: torch.from_numpy(
                np.reshape(m.predict(x), (x.shape[0], -1)) * spread + centre
            )
        return
    if objective.targets == TargetKind.CLASS and len(np.unique(wanted)) < 2:
        constant = _constant(targets, objective)
        yield lambda x: constant.expand(x.shape[0], -1)
        return
    logistic = LogisticRegression(max_iter=100, tol=1e-3, warm_start=True)
    for strength in _STRENGTHS:  # each begins with the weights of the one before
        logistic.set_params(C=strength)
        model: Any = logistic
        if objective.targets == TargetKind.LABELS:
            model = OneVsRestClassifier(logistic)
        model = deepcopy(model.fit(features, wanted))
        yield lambda x, m=model: _probabilities(m, x, objective)


def _probabilities(model: Any, features: Any, objective: Objective) -> Tensor:
    """(n, k), 0 for classes that the training examples lack."""
    found = torch.from_numpy(np.asarray(model.predict_proba(features), dtype=np.float64))
    if objective.targets == TargetKind.LABELS:
        return found
    spread = found.new_zeros(len(found), objective.out_dim)
    spread[:, torch.from_numpy(np.asarray(model.classes_))] = found
    return spread


def _measured(objective: Objective, predictions: Tensor, targets: Tensor) -> dict[str, float]:
    metrics = objective.metrics()
    for metric in metrics.values():
        metric.distributed_available_fn = lambda: False  # the first process alone is here
    metrics.update(predictions.float(), objective.metric_target(targets))
    return {str(name): float(value) for name, value in metrics.compute().items()}


def _add(
    found: Baselines, name: str, objective: Objective, predictions: Tensor, targets: Tensor
) -> None:
    values = _measured(objective, predictions, targets)
    found.examples[name] = len(targets)
    found.values |= {f"baseline/{name}/{metric}": value for metric, value in values.items()}


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Leaves the run's generators as they are, and the terminal free of others' warnings."""
    numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not converged: it is a baseline
            yield
    finally:
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
