"""Which callbacks a run has, by its config."""

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
    config = compose_run(*(f"{switch}={settings.get(switch, 'none')}" for switch in off))
    made = build_callbacks(config.callbacks, [*(config.logger or {})], config.trainer)
    names = {type(callback).__name__ for callback in made}
    assert names >= {SWITCHED[switch] for switch in SWITCHED if switch not in off}
    assert not names & {SWITCHED[switch] for switch in off}


def test_a_logger_that_is_null_is_none(compose_run):
    assert build_loggers(compose_run("logger.csv=null").logger) == []
