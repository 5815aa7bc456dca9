"""Two processes on the CPU: one run folder, and no example counted twice."""

import json

import pytest

from runner.evaluation import run_evaluation

TWO = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=3", "logger=none"]
SHORT += ["trainer.limit_val_batches=2", "task.val_subsets=none"]


LACKING = "data.missing={test:{audio:0.4}}"


@pytest.fixture
def evaluate(compose_run, tmp_path):
    """evaluate(checkpoint) → what one process, this one, says of the test split."""

    def run(checkpoint):
        folder = tmp_path / "one"
        given = [f"ckpt_path={checkpoint}", f"paths.run_dir={folder}", LACKING]
        run_evaluation(compose_run(*given, "trainer.accelerator=cpu", name="evaluate"))
        results = json.loads((folder / "results.json").read_text())
        return {name: value for name, value in results.items() if name.startswith("test/")}

    return run


def same(results, of_one):
    assert len(of_one) == 27
    for name, value in of_one.items():
        assert results[name] == pytest.approx(value, abs=1e-6), name


@pytest.mark.slow
def test_two_processes_train_into_one_folder_and_test_as_one(run_script, evaluate, tmp_path):
    run_script("train.py", *TWO, *SHORT, LACKING, OMP_NUM_THREADS="1")
    [folder] = [path.parent for path in tmp_path.glob("outputs/**/results.json")]
    assert not list(tmp_path.glob("multirun"))
    results = json.loads((folder / "results.json").read_text())
    same(results, evaluate(folder / "checkpoints" / "best.ckpt"))


@pytest.mark.slow
def test_sweep_over_two_processes_keeps_its_jobs_apart_and_each_is_evaluated_as_by_one(
    run_script, evaluate, tmp_path
):
    sweep = ["-m", "seed=1,2", f"hydra.sweep.dir={tmp_path}/sweep"]
    run_script("train.py", *sweep, *TWO, *SHORT, "test=false", OMP_NUM_THREADS="1")
    for job, seed in (("0", 1), ("1", 2)):
        results = json.loads((tmp_path / "sweep" / job / "results.json").read_text())
        assert results["seed"] == seed
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir()) == [
        "0",
        "1",
    ]
    assert not list(tmp_path.glob("multirun"))
    checkpoint = tmp_path / "sweep" / "1" / "checkpoints" / "best.ckpt"
    given = [f"ckpt_path={checkpoint}", f"hydra.run.dir={tmp_path}/two", LACKING]
    run_script("evaluate.py", *given, *TWO, OMP_NUM_THREADS="1")
    same(json.loads((tmp_path / "two" / "results.json").read_text()), evaluate(checkpoint))
