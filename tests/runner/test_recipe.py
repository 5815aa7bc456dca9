"""Options left open are chosen from the data, and what a person says stays."""

import pytest
from omegaconf import OmegaConf

from datamodules.core.facts import DataFacts
from perceiver.types import TargetKind
from runner.recipe import MAX_STEPS, OPTIONS, RECIPES, describe, provisional, settle


def facts(examples):
    return DataFacts(targets=TargetKind.CLASS, num_examples={"train": examples})


def of(config, *paths):
    return [OmegaConf.select(config, path) for path in paths]


def test_every_open_option_is_chosen_and_told_as_an_override(compose_run):
    config = compose_run()
    final = settle(config, facts(1300))
    ours = [option for option in OPTIONS if "array" not in option]
    assert None not in of(final, *ours)
    assert of(config, *ours) == [None] * len(ours), "the one given stays as it is"
    (line,) = describe(final, config)
    assert f"trainer.max_epochs={final.trainer.max_epochs}" in line.split()
    assert describe(final, final) == []


def test_what_is_said_stays(compose_run):
    said = ["optimizer.lr=0.5", "trainer.max_epochs=7", "model.modality_dropout.p=0.25"]
    final = settle(compose_run(*said), facts(1300))
    assert of(final, "optimizer.lr", "trainer.max_epochs", "model.modality_dropout.p") == [
        0.5,
        7,
        0.25,
    ]
    assert final.callbacks.early_stopping.patience == 5, "follows the epochs that were said"


@pytest.mark.parametrize(("budget", "share"), [("fast", 0.3), ("good", 1.0), ("best", 3.0)])
def test_a_budget_is_a_share_of_the_epochs(compose_run, budget, share):
    config = compose_run("data=fsdd", f"budget={budget}")
    assert settle(config, facts(640)).trainer.max_epochs == round(RECIPES["audio"].epochs * share)


def test_a_budget_that_is_none_is_refused(compose_run):
    with pytest.raises(ValueError, match="budget='huge', expected fast, good, best"):
        provisional(compose_run("budget=huge"))


def test_a_long_table_gets_fewer_epochs(compose_run):
    config = compose_run("data=fsdd", "data.batch_size=8")
    assert settle(config, facts(MAX_STEPS * 8 // 5)).trainer.max_epochs == 5


def test_few_examples_come_more_often(compose_run):
    config = compose_run("data=sst2")
    config.data.text.tokenizer = "words"
    assert settle(config, facts(64 * 100)).trainer.max_epochs == RECIPES["words"].epochs
    assert settle(config, facts(64 * 10)).trainer.max_epochs == 30
    assert settle(config, facts(64)).trainer.max_epochs == 80


def test_a_lone_modality_is_never_dropped_nor_a_column_of_a_table(compose_run):
    config = compose_run("data=fsdd")
    assert settle(config, facts(500)).model.modality_dropout.p == 0.0
    config = compose_run("data=manifest", "data.path=my.csv")
    config.data.modalities = ["array", "category", "date"]
    assert settle(config, facts(500)).model.modality_dropout.p == 0.0
    config.data.modalities = ["array", "text"]
    assert settle(config, facts(500)).model.modality_dropout.p == 0.5


def test_recurrent_models_are_not_stopped_early(compose_run):
    final = settle(compose_run("data=copy", "trainer.max_epochs=40"), DataFacts(targets=None))
    assert final.callbacks.early_stopping.patience == 40


def test_few_rows_of_a_table_get_a_small_model_of_straight_lines(compose_run):
    config = compose_run("data=manifest", "data.path=my.csv")
    config.data.modalities = ["array"]
    few, many = (settle(config, facts(rows)) for rows in (300, 3000))
    assert few.model.encoder.latent_dim < many.model.encoder.latent_dim
    encodings = [final.model.adapters.array.encoding for final in (few, many)]
    assert encodings == ["linear", "piecewise"]
