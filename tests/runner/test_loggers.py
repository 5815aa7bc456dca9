"""Which callbacks a run has, by its config."""

import csv

import pytest

from runner.loggers import build_callbacks, build_loggers

SWITCHED = {
    "trainer.enable_progress_bar": "ProgressBar",
    "trainer.enable_model_summary": "RichModelSummary",
    "logger": "LearningRateMonitor",
}


@pytest.mark.parametrize("off", [[], ["trainer.enable_progress_bar"], [*SWITCHED]])
def test_what_the_config_switches_off_has_no_callback(compose_run, off):
    settings = {"trainer.enable_progress_bar": "false", "trainer.enable_model_summary": "false"}
    switches = [f"{switch}={settings.get(switch, 'none')}" for switch in off]
    config = compose_run(*switches)
    made = build_callbacks(config.callbacks, [*(config.logger or {})], config.trainer)
    names = {type(callback).__name__ for callback in made}
    assert names >= {SWITCHED[switch] for switch in SWITCHED if switch not in off}
    assert not names & {SWITCHED[switch] for switch in off}


def test_a_logger_that_is_null_is_none(compose_run):
    assert build_loggers(compose_run("logger.csv=null").logger) == []


def rows_of(folder):
    with (folder / "metrics" / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]


def log(config, metrics, **options):
    [logger] = build_loggers(config.logger, **options)
    for step, values in metrics:
        logger.log_metrics(values, step)
    return logger


def test_a_run_that_goes_on_has_each_row_once(compose_run, tmp_path):
    config = compose_run("logger=csv")
    log(config, [(n, {"loss": 0.5 * n}) for n in range(7)])  # killed: never finalised
    with (tmp_path / "run" / "metrics" / "metrics.csv").open("a") as file:
        file.write("1")  # of 12,7
    log(config, [(5, {"loss": 9.0}), (6, {"acc": 0.5})], resume_step=5)
    losses = [{"loss": str(0.5 * n), "step": str(n)} for n in range(5)]
    assert rows_of(tmp_path / "run") == [
        *losses,
        {"loss": "9.0", "step": "5"},
        {"acc": "0.5", "step": "6"},
    ]


def test_a_new_run_in_the_folder_has_its_own_rows_alone(compose_run, tmp_path):
    config = compose_run("logger=csv")
    log(config, [(3, {"loss": 0.5})])
    with pytest.warns(UserWarning, match="will be deleted"):
        log(config, [(0, {"loss": 0.25})])
    assert rows_of(tmp_path / "run") == [{"loss": "0.25", "step": "0"}]


def test_a_run_that_goes_on_without_rows_begins_them(compose_run, tmp_path):
    log(compose_run("logger=csv"), [(3, {"loss": 0.5})], resume_step=3)
    assert rows_of(tmp_path / "run") == [{"loss": "0.5", "step": "3"}]


def test_wandb_and_tensorboard_go_on_where_they_were(compose_run, tmp_path):
    for name in ("run-20250101_000000-old", "offline-run-20260101_000000-new"):
        (tmp_path / "run" / "wandb" / name).mkdir(parents=True)
    loggers = build_loggers(compose_run("logger=[wandb,tensorboard]").logger, resume_step=7)
    wandb, tensorboard = loggers
    assert wandb.version == "new"
    assert wandb._wandb_init["resume"] == "allow"
    assert tensorboard._kwargs["purge_step"] == 7
