"""Simple models beside a run: what they reach, and that they disturb nothing."""

import numpy as np
import pytest
import torch

from datamodules.core.columns import Numbers, Tensors, Values
from datamodules.core.datamodule import MultimodalDataModule
from datamodules.core.dataset import Source
from perceiver.tasks import MultiLabel, Regression, SingleLabel
from perceiver.types import TargetKind
from runner.baseline import fit_baselines

SIZES = {"train": 61, "val": 17, "test": 29}


class Table(MultimodalDataModule):
    """A text, numbers and a picture a row; `tell` says what the text and the target are."""

    available_modalities = ("image", "text", "array")

    def __init__(self, tell, *, kind, names, **options):
        self.tell, self.names, self.targets = tell, names, kind
        array = {"length": 2, "mean": [0.0, 0.0], "std": [1.0, 1.0]}
        super().__init__(
            modalities=["image", "text", "array"],
            batch_size=7,
            image={"channels": 1, "size": [5, 7]},
            text={"max_length": 31, "tokenizer": "bytes", "vocab_size": 262},
            array=array,
            **options,
        )

    def build(self):
        sources = {}
        for number, (split, count) in enumerate(SIZES.items()):
            rng = np.random.default_rng(number)
            numbers = rng.normal(size=(count, 2))
            texts, targets = zip(*(self.tell(rng, row) for row in numbers), strict=True)
            pictures = rng.integers(0, 256, (count, 1, 5, 7), dtype=np.uint8)
            sources[split] = Source(
                targets=torch.tensor(targets),
                ids=[f"{split} {n}" for n in range(count)],
                columns={
                    "image": Tensors([None, *torch.from_numpy(pictures)[1:]]),
                    "text": Values(list(texts)),
                    "array": Numbers(numbers),
                },
            )
        return self.names, sources


def opened(tell, **options):
    module = Table(tell, **options)
    module.setup()
    return module


def test_a_text_that_tells_the_class_is_read_and_the_largest_class_is_the_figure_to_beat():
    def tell(rng, row):
        label = int(rng.random() < 0.3)
        return f"so {['dull', 'good'][label]} it was {rng.integers(99)}", label

    module = opened(tell, kind=TargetKind.CLASS, names=["no", "yes"])
    state = np.random.get_state()[1].copy(), torch.get_rng_state()
    found = fit_baselines(module, SingleLabel(out_dim=2))
    share = (module.splits["test"].source.targets == 0).float().mean().item()
    assert found.values["baseline/majority/acc"] == pytest.approx(share)
    assert found.values["baseline/majority/balanced_acc"] == 0.5
    assert found.labels["majority"] == f"always no ({share:.1%} of test)"
    assert share < 0.8
    assert found.values["baseline/linear/acc"] > 0.9
    assert found.examples == {"majority": 29, "linear": 29}
    assert found.rows("acc")["baseline/linear/acc"] == ("linear model on simple features", 29)
    assert (np.random.get_state()[1] == state[0]).all()
    assert torch.equal(torch.get_rng_state(), state[1])


def test_values_that_numbers_tell_are_found_and_held_against_the_mean():
    def tell(rng, row):
        return "a word or more", [float(50 + 7 * row[0] - 3 * row[1]), float(row[1])]

    module = opened(tell, kind=TargetKind.VALUES, names=["a", "b"])
    found = fit_baselines(module, Regression(out_dim=2)).values
    centre = module.splits["train"].source.targets.mean(0)
    away = (module.splits["test"].source.targets - centre).abs().mean().item()
    assert found["baseline/mean/mae"] == pytest.approx(away, rel=1e-5)
    assert found["baseline/linear/r2"] > 0.9
    assert found["baseline/linear/mae"] < 0.3 * away


def test_labels_of_any_number_have_a_model_each_one_without_examples_too():
    def tell(rng, row):
        return "a word or more", [int(row[0] > 0), int(row[1] > 0.5), 0]

    module = opened(tell, kind=TargetKind.LABELS, names=["a", "b", "c"])
    found = fit_baselines(module, MultiLabel(out_dim=3)).values
    assert found["baseline/linear/acc"] > found["baseline/majority/acc"]


def test_a_class_that_training_lacks_and_one_class_alone_are_no_trouble():
    module = opened(lambda rng, row: ("", 1), kind=TargetKind.CLASS, names=["a", "b", "c"])
    found = fit_baselines(module, SingleLabel(out_dim=3))
    assert found.values["baseline/linear/acc"] == found.values["baseline/majority/acc"] == 1


def test_what_cannot_be_fitted_is_a_note(monkeypatch):
    def full(*_, **__):
        raise MemoryError("no room")

    monkeypatch.setattr("runner.baseline.baseline.read", full)
    module = opened(lambda rng, row: ("a", 1), kind=TargetKind.CLASS, names=["a", "b"])
    found = fit_baselines(module, SingleLabel(out_dim=2))
    assert "no linear baseline: no room" in found.notes
    assert list(found.labels) == ["majority"]


def test_the_first_of_several_processes_asks_none_of_the_others(monkeypatch):
    def tell(rng, row):
        return "a word or more", int(row[0] > 0)

    module = opened(tell, kind=TargetKind.CLASS, names=["no", "yes"])
    # As if there were others, which nobody could reach.
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    assert fit_baselines(module, SingleLabel(out_dim=2)).values["baseline/linear/acc"] > 0.8
