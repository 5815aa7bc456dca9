"""Two processes on the CPU: one run folder, and no example counted twice."""

import json

import pytest

TWO = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=3", "logger=none"]


def test_two_processes_train_into_one_folder_and_evaluate_as_one(run_script, tmp_path):
    run_script("train.py", *TWO, *SHORT, OMP_NUM_THREADS="1")
    [folder] = [path.parent for path in tmp_path.glob("outputs/**/results.json")]
    assert not list(tmp_path.glob("multirun"))
    checkpoint = folder / "checkpoints" / "best.ckpt"

    values = []
    for name, processes in (("one", ["trainer.accelerator=cpu"]), ("two", TWO)):
        run_script(
            "evaluate.py",
            f"ckpt_path={checkpoint}",
            f"hydra.run.dir={tmp_path}/{name}",
            "data.missing={test:{audio:0.4}}",
            *processes,
            OMP_NUM_THREADS="1",
        )
        values.append(json.loads((tmp_path / name / "results.json").read_text()))
    one, two = values
    names = [name for name in one if name.startswith("test/")]
    assert len(names) == 9
    for name in names:
        assert one[name] == pytest.approx(two[name], abs=1e-6), name


@pytest.mark.slow
def test_sweep_over_two_processes_keeps_its_jobs_apart(run_script, tmp_path):
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
