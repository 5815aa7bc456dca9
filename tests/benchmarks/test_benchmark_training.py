"""The rate of train.py, read from what a run leaves."""

from __future__ import annotations

import json
import sys
from unittest.mock import MagicMock

import pytest

from benchmarks import training
from benchmarks.training import RATE, Variant, accuracy, examples_per_second, run


def leave(folder, rates):
    (folder / "metrics").mkdir()
    lines = ["epoch,step," + RATE, *(f"{n},{n},{rate}" for n, rate in enumerate(rates))]
    (folder / "metrics" / "metrics.csv").write_text("\n".join(lines) + "\n")


def test_the_first_epoch_and_rows_of_other_metrics_do_not_count(tmp_path):
    leave(tmp_path, ["10.0", "", "30.0", "50.0"])
    assert examples_per_second(tmp_path) == [30.0, 50.0]


def test_a_single_epoch_has_no_rate(tmp_path):
    leave(tmp_path, ["10.0"])
    with pytest.raises(ValueError, match="two or more"):
        examples_per_second(tmp_path)


def test_a_run_that_fails_says_what_it_said(tmp_path):
    with pytest.raises(RuntimeError, match="optimizer"):
        run(Variant(("optimizer.lrr=1",)), (), threads=1)


def test_what_is_added_replaces_a_job_and_joins_accuracies(tmp_path, monkeypatch, capsys):
    file = tmp_path / "training.json"

    def measure(*words, found):
        monkeypatch.setattr(training, "run", lambda *_: found)
        monkeypatch.setattr(training, "SEEDS", range(2))
        monkeypatch.setattr(sys, "argv", ["training", "--json", str(file), *words])
        training.main()
        return json.loads(file.read_text())

    one = ("--rounds", "1", "--jobs", "default")
    first = measure(*one, "--variants", "auto", "dense", found=[2.0, 4.0])
    only = ("--rounds", "0", "--variants", "auto", "--add", "--accuracy")
    # The processes of a first run have described the machine, which stays what it is.
    monkeypatch.setattr(training, "Pool", MagicMock())
    monkeypatch.setattr(training, "described", lambda *_: first["machine"])
    measure(*only, "auto", found=[0.5])
    results = measure(*only, "bf16", found=[0.25])
    assert results["jobs"]["default"].keys() == {"auto", "dense"}
    assert results["accuracy"]["default"] == {"auto": [0.5, 0.5], "bf16": [0.25, 0.25]}
    assert len(results["command"].splitlines()) == 3
    results = measure(*one, "--variants", "bf16", "--add", found=[8.0])
    assert results["jobs"]["default"].keys() == {"bf16"}
    assert results["jobs"]["default"]["bf16"]["median"] == 8.0
    assert "| bf16 | 8 | – |" in capsys.readouterr().out


@pytest.mark.slow
def test_a_short_run_has_a_rate_and_an_accuracy():
    small = [f"trainer.limit_{split}_batches=1" for split in ("train", "val", "test")]
    overrides = (*small, "trainer.max_epochs=2")
    found = run(Variant(), overrides, 1, lambda at: examples_per_second(at) + accuracy(at))
    assert len(found) == 2
    assert found[0] > 0
    assert 0 <= found[1] <= 1
