"""The rate of train.py, read from what a run leaves."""

from __future__ import annotations

import pytest

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


@pytest.mark.slow
def test_a_short_run_has_a_rate_and_an_accuracy():
    small = [f"trainer.limit_{split}_batches=1" for split in ("train", "val", "test")]
    overrides = (*small, "trainer.max_epochs=2")
    found = run(Variant(), overrides, 1, lambda at: examples_per_second(at) + accuracy(at))
    assert len(found) == 2
    assert found[0] > 0
    assert 0 <= found[1] <= 1
