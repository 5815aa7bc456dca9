"""train.py, evaluate.py and predict.py as a user runs them."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from perceiver.tasks import SupervisedTask
from runner import training
from runner.evaluation import run_evaluation
from runner.prediction import run_prediction
from runner.training import run_training

PROJECT = Path(__file__).parents[1]
SHORT = ["trainer.max_epochs=2", "trainer.limit_train_batches=3", "trainer.log_every_n_steps=1"]
FEW = ["trainer.limit_val_batches=2", "trainer.limit_test_batches=2"]
WHOLE = ["task.val_subsets=none", "task.test_subsets=none", *FEW]  # all modalities together
ONE = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "test=false", *WHOLE]
SUBSETS = ["image", "audio", "text", "image+audio", "image+text", "audio+text"]


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def test_run_leaves_results_for_every_subset_and_files_to_look_at(compose_run, tmp_path):
    score = run_training(compose_run(*SHORT, *FEW, "seed=5"))
    folder = tmp_path / "run"
    results = results_of(folder)
    assert {f"test/acc/{subset}" for subset in SUBSETS} <= set(results)
    assert results["seed"] == 5
    assert results["fit_seconds"] > 0
    assert results["versions"]["torch"] == torch.__version__.split("+")[0]
    assert 0 <= results["test/acc"] <= 1
    assert score == results["val/acc"]
    with Image.open(folder / "confusion.png") as picture:
        assert min(picture.size) > 300
    with (folder / "predictions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 100
    assert (folder / "checkpoints" / "last.ckpt").exists()


def test_a_run_steps_all_parameters_in_one_kernel(compose_run, tmp_path):
    run_training(compose_run(*ONE))
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    (state,) = saved["optimizer_states"]
    assert all(group["fused"] for group in state["param_groups"])


def test_products_are_as_exact_as_each_run_says(compose_run, monkeypatch):
    told = []
    take = SupervisedTask.training_step

    def step(self, *batch):
        told.append(torch.get_float32_matmul_precision())
        return take(self, *batch)

    monkeypatch.setattr(SupervisedTask, "training_step", step)
    for chosen in (["matmul_precision=medium"], []):
        run_training(compose_run(*ONE, *chosen))
    assert told == ["medium", "highest"]


def test_tested_weights_are_those_of_the_best_checkpoint(compose_run, tmp_path):
    run_training(compose_run(*SHORT, *FEW))
    trained = results_of(tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    given = [f"ckpt_path={path}", f"paths.run_dir={tmp_path}/again", "trainer.limit_test_batches=2"]
    run_evaluation(compose_run(*given, name="evaluate"))
    evaluated = results_of(tmp_path / "again")
    names = [name for name in trained if name.startswith("test/")]
    assert {"test/loss", "test/acc", "test/ece", *(f"test/acc/{s}" for s in SUBSETS)} <= set(names)
    assert {name: evaluated[name] for name in names} == {name: trained[name] for name in names}
    # The best epoch's own validation, as it was logged during the fit.
    scores, losses = (_column(tmp_path / "run", f"val/{name}")[:-1] for name in ("score", "loss"))
    assert trained["val/loss"] == pytest.approx(losses[scores.index(max(scores))])


def _column(folder, name):
    with (folder / "metrics" / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def test_run_logs_rate_norm_throughput_and_losses(compose_run, tmp_path):
    every = "callbacks.gradient_norm.every_n_steps=1"
    run_training(compose_run(*SHORT, *FEW, every, "test=false"))
    folder = tmp_path / "run"
    for name in ("train/loss", "train/grad_norm", "train/examples_per_second", "val/acc/image"):
        assert all(value >= 0 for value in _column(folder, name)), name
        assert _column(folder, name), name
    assert any("lr-" in key for key in (folder / "metrics" / "metrics.csv").read_text().split(","))


def test_same_seed_gives_the_same_result_and_another_does_not(compose_run, tmp_path):
    losses = []
    for seed in (1, 1, 2):
        folder = f"paths.run_dir={tmp_path}/{len(losses)}"
        run_training(compose_run(*ONE, f"seed={seed}", folder))
        losses.append(results_of(tmp_path / str(len(losses)))["val/loss"])
    assert losses[0] == losses[1] != losses[2]


class StopAfter(pl.Callback):
    """Ends a fit after some epochs, as a kill between two epochs would."""

    def __init__(self, epochs):
        self.epochs = epochs

    def on_validation_end(self, trainer, pl_module):
        if trainer.current_epoch + 1 == self.epochs and not trainer.sanity_checking:
            trainer.should_stop = True


@pytest.mark.slow
def test_resumed_run_ends_as_the_whole_one(compose_run, tmp_path, monkeypatch):
    run = ["trainer.max_epochs=3", "trainer.limit_train_batches=3", "test=false", *WHOLE]
    run_training(compose_run(*run, f"paths.run_dir={tmp_path}/whole"))
    with monkeypatch.context() as patch:
        build = training.build_callbacks
        patch.setattr(training, "build_callbacks", lambda *a: [*build(*a), StopAfter(2)])
        run_training(compose_run(*run, f"paths.run_dir={tmp_path}/part"))
    last = tmp_path / "part" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 6
    run_training(compose_run(*run, f"ckpt_path={last}", f"paths.run_dir={tmp_path}/rest"))
    ended, resumed = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("whole", "rest")
    )
    assert ended["global_step"] == resumed["global_step"] == 9
    assert ended["lr_schedulers"][0]["last_epoch"] == resumed["lr_schedulers"][0]["last_epoch"] == 9


@pytest.mark.parametrize(
    "precision", ["bf16-mixed", pytest.param("bf16-true", marks=pytest.mark.slow)]
)
def test_the_default_job_trains_in_half_precision(compose_run, tmp_path, precision):
    run_training(compose_run(*SHORT, *WHOLE, f"trainer.precision={precision}"))
    assert 0 <= results_of(tmp_path / "run")["test/acc"] <= 1
    losses = _column(tmp_path / "run", "train/loss")
    assert len(losses) == 6
    assert all(map(math.isfinite, losses))


def test_no_logger_is_needed(compose_run, tmp_path):
    assert math.isfinite(run_training(compose_run(*ONE, "logger=none")))
    assert not (tmp_path / "run" / "metrics").exists()


def test_neither_loggers_nor_callbacks_are_needed(compose_run):
    assert math.isfinite(run_training(compose_run(*ONE, "logger=[]", "callbacks=[]")))


def test_wandb_goes_offline_by_itself_and_holds_the_run(compose_run, tmp_path, capfd):
    loggers = "logger=[wandb,csv,tensorboard]"
    run_training(compose_run(*SHORT, *FEW, loggers, "callbacks.gradient_norm.every_n_steps=1"))
    folder = tmp_path / "run"
    [file] = folder.glob("wandb/offline-run-*/*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    logged = set()
    for line in done.stdout.splitlines():
        record = json.loads(line)
        if record.get("type") == "history":
            logged |= {name.partition(".")[0] for name in record["history"]["item"]}
    wanted = {"train/loss", "val/acc", "val/acc/image", "train/grad_norm", "test/acc/image+audio"}
    wanted |= {"train/examples_per_second", "test/confusion", "test/predictions"}
    assert wanted <= logged, wanted - logged
    assert any(name.startswith("lr-") for name in logged)
    media = folder.glob("wandb/offline-run-*/files/media/**/*.*")
    assert {path.suffix for path in media} >= {".png", ".json"}
    assert list((folder / "tensorboard").glob("events.*"))
    assert list(folder.glob("metrics/metrics.csv"))


@pytest.mark.slow
def test_sweep_names_the_jobs_that_are_refused_and_runs_the_others(run_script, tmp_path):
    choices = "attention@model.cross_attention=swin,single_head,luong_dot"
    folder = f"hydra.sweep.dir={tmp_path}/sweep"
    done = run_script("train.py", "-m", choices, "debug=fast", folder, status=1)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert lines[0].startswith("error: job 0 (attention@model.cross_attention=swin, debug=fast): ")
    assert "needs grid=[height, width]" in lines[0]
    assert "job 2 (attention@model.cross_attention=luong_dot" in lines[1]
    assert lines[2:] == ["error: 2 of the sweep's jobs failed, as said above"]
    assert "Traceback" not in done.stderr
    assert results_of(tmp_path / "sweep" / "1")["seed"] == 0


def test_help_lists_every_group_and_choice_without_importing_torch(run_script):
    done = run_script("train.py", "--help", timeout=60)
    groups = "data model modality attention decoder task optimizer scheduler trainer logger"
    for group in [*groups.split(), "callbacks", "experiment", "debug", "paths", "fusion"]:
        assert f"\n{group}: " in done.stdout, group
    assert "av_digits" in done.stdout
    assert "imagenet_perceiver_io" in done.stdout


def test_prediction_reads_files_as_in_training(compose_run, tmp_path, capsys):
    run_training(compose_run(*ONE))
    Image.new("L", (9, 11), 128).save(tmp_path / "scan.png")
    checkpoint = tmp_path / "run" / "checkpoints" / "best.ckpt"
    given = [f"ckpt_path={checkpoint}", f"image={tmp_path}/scan.png", "text=seven"]
    answer = run_prediction(compose_run(*given, name="predict"))
    assert answer.sum() == pytest.approx(1.0, abs=1e-5)
    shown = capsys.readouterr().out
    assert "from image, text" in shown
    assert f"{answer.max():.4f}" in shown
    with pytest.raises(ValueError, match="needs something to read"):
        run_prediction(compose_run(given[0], name="predict"))
    with pytest.raises(FileNotFoundError, match="no audio file"):
        run_prediction(compose_run(given[0], "audio=none.wav", name="predict"))


@pytest.mark.slow
def test_default_job_reaches_its_promise(run_script, tmp_path):
    run_script("train.py", f"hydra.run.dir={tmp_path}/run", timeout=1200)
    results = results_of(tmp_path / "run")
    assert results["test/acc"] >= 0.98
    for modality in ("image", "audio", "text"):
        assert 0.75 <= results[f"test/acc/{modality}"] <= 0.93, modality


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["fsdd"])
def test_shipped_experiment_reaches_its_promise(run_script, tmp_path, experiment):
    recordings = PROJECT.parent / "shared" / "data" / "fsdd" / "recordings"
    if not recordings.is_dir():
        pytest.skip("needs the recordings in ../shared/data/fsdd")
    run = [f"experiment={experiment}", f"data.root={recordings}", f"hydra.run.dir={tmp_path}/run"]
    run_script("train.py", *run, timeout=580)
    results = results_of(tmp_path / "run")
    assert results["test/acc"] >= 0.985
    for part in ("image", "audio"):  # a part may be all that it takes, and is never more
        assert results["test/acc"] >= results.get(f"test/acc/{part}", 0)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_run_in_eight_bits_is_tested_as_others_are(run_script, tmp_path, precision):
    pytest.importorskip("torchao", reason="needs the extra [float8]")
    run = tmp_path / "run"
    short = ("trainer.max_epochs=1", "trainer.limit_train_batches=2", f"hydra.run.dir={run}")
    small = ("modality@model.adapters=[text]", "model.modality_dropout=null")
    said = run_script("train.py", "float8=true", f"trainer.precision={precision}", *short, *small)
    assert "linear layers multiply in float8 (emulated" in said.stdout + said.stderr
    again = tmp_path / "again"
    run_script("evaluate.py", f"ckpt_path={run}/checkpoints/best.ckpt", f"hydra.run.dir={again}")
    trained, evaluated = results_of(run), results_of(again)
    assert evaluated["test/loss"] == pytest.approx(trained["test/loss"], rel=1e-2)
    if precision == "32-true":
        assert evaluated["test/loss"] == pytest.approx(trained["test/loss"], rel=1e-5)


@pytest.mark.slow
def test_compiling_changes_no_result(run_script, tmp_path):
    losses, seconds = [], []
    for compiled in ("false", "true", "whole"):
        folder = tmp_path / compiled
        run_script(
            "train.py",
            f"compile={compiled}",
            f"hydra.run.dir={folder}",
            "model.modality_dropout=null",  # a compiler draws other random numbers
            "trainer.max_epochs=1",
            "trainer.limit_train_batches=3",
            "test=false",
        )
        results = json.loads((folder / "results.json").read_text())
        losses.append(results["val/loss"])
        seconds.append(results.get("compile_seconds"))
    assert losses[1:] == pytest.approx(2 * losses[:1], rel=1e-4)
    assert seconds[0] is None
    assert all(taken > 0 for taken in seconds[1:])
