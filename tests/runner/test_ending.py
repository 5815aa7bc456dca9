"""results.json and the exit status say how a run ended."""

import json
import os
import signal
from contextlib import nullcontext

import pytest

from perceiver.callbacks import ConfusionMatrix, Interrupted
from runner.ending import results_told, signals_end_in_order
from runner.training import run_training
from tests.callbacks.test_stopping import Send

SHORT = (
    "trainer.limit_train_batches=3",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
    "trainer.max_epochs=2",
    "modality@model.adapters=[text]",
    "model.modality_dropout=null",
    "trainer.log_every_n_steps=1",
)


def strict(path):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "finished"), (ValueError("no"), "failed"), (Interrupted(15), "interrupted")],
)
def test_results_say_how_the_run_ended(tmp_path, error, status):
    path = tmp_path / "results.json"
    fails = pytest.raises(type(error)) if error else nullcontext()
    with fails, results_told(path, {"loss": float("nan"), "all": [float("inf"), 0.5]}):
        assert strict(path)["status"] == "running"
        if error:
            raise error
    found = strict(path)
    assert (found["status"], found["loss"], found["all"]) == (status, None, [None, 0.5])
    assert found.get("error") == (str(error) if error else None)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_the_exit_status(signum, status):
    before = signal.getsignal(signum)
    with pytest.raises(SystemExit) as ended, signals_end_in_order():
        os.kill(os.getpid(), signum)
    assert ended.value.code == status
    assert signal.getsignal(signum) is before


@pytest.fixture
def run(compose_run, tmp_path, monkeypatch):
    """Runs with another callback; the exit status and results.json."""

    def train(callback, *overrides):
        build = "runner.training.build_callbacks"
        from runner.loggers import build_callbacks

        monkeypatch.setattr(build, lambda *a: [callback, *build_callbacks(*a)])
        try:
            run_training(compose_run(*SHORT, *overrides))
        except SystemExit as ended:
            return ended.code, strict(tmp_path / "run" / "results.json")
        return 0, strict(tmp_path / "run" / "results.json")

    return train


@pytest.mark.slow
def test_ctrl_c_saves_and_reports_on_what_was_trained(run, tmp_path, capsys):
    status, results = run(Send(signal.SIGINT, step=4))
    assert status == 130
    assert results["status"] == "interrupted"
    assert 0 <= results["test/acc"] <= 1
    assert "What the model knows" in capsys.readouterr().out
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


def test_a_termination_saves_and_leaves_the_test_out(run, tmp_path):
    status, results = run(Send(signal.SIGTERM, step=4))
    assert status == 143
    assert (results["status"], results["steps"]) == ("interrupted", 5)
    assert "test/acc" not in results
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.slow
def test_a_picture_that_cannot_be_drawn_costs_no_results(compose_run, tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError("no picture")

    monkeypatch.setattr(ConfusionMatrix, "on_test_end", fail)
    with pytest.raises(ValueError, match="no picture"):
        run_training(compose_run(*SHORT))
    results = strict(tmp_path / "run" / "results.json")
    assert (results["status"], results["error"]) == ("failed", "no picture")
    assert 0 <= results["test/acc"] <= 1
