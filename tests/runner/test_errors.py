"""Bad input gets one clear sentence: what is wrong, where, and what to do."""

from pathlib import Path

import pytest
import torch

from runner.errors import USER_ERRORS, sentence
from runner.training import run_training

CONF = Path(__file__).parents[2] / "conf"
SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1"]
SHORT += ["trainer.limit_test_batches=1", "task.val_subsets=none", "task.test_subsets=none"]


def error_of(done):
    """The one error line of a script that ended."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


@pytest.fixture
def refusal(compose_run):
    """What train.py would print of a run that cannot work."""

    def run(*overrides):
        with pytest.raises(USER_ERRORS) as caught:
            run_training(compose_run(*overrides))
        return sentence(caught.value, CONF, "config")

    return run


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimizer.lrr=1", "'optimizer.lr'"),
        ("lrr=1", "'optimizer.lr'"),
        ("dta=digits", "'data'"),
        ("data=digitz", "did you mean 'digits'"),
        ("modality@model.adapters=[image,txt]", "did you mean 'text'"),
        ("trainer.max_epoch=3", "'trainer.max_epochs'"),
        ("model.encoder.num_latent=3", "'model.encoder.num_latents'"),
        ("experiment=fsd", "did you mean 'fsdd'"),
    ],
)
def test_typo_names_the_nearest_choice(run_script, override, words):
    assert words in error_of(run_script("train.py", override, status=1))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.latent_attention.num_heads=7"], ["num_heads=7", "=96", "latent_attention"]),
        (["data.modalities=[image]"], ["image", "audio, image, text", "modality@model.adapters"]),
        (["task=multi_label"], ["labels", "a class", "task=single_label"]),
        (["data.num_classes=9"], ["num_classes=9", "10"]),
        (["ckpt_path=nowhere.ckpt"], ["no checkpoint nowhere.ckpt"]),
        (["fit=false"], ["ckpt_path"]),
        (["data=fsdd"], ["data.download=true"]),
        (["model.encoder.num_cross_attends=3"], ["num_cross_attends=3", "num_blocks=1"]),
        (["trainer.precision=16-mixed"], ["optimizer.fused=false"]),
        (["compile=all"], ["compile=all", "false, true", "whole"]),
        (["compile=1"], ["compile=1", "false, true", "whole"]),
        (["trainer.max_epochs=-1"], ["trainer.max_epochs"]),
        (["optimizer.lr=abc"], ["optimizer.lr=abc", "AdamW takes lr as float"]),
        (["optimizer.eps=null"], ["optimizer.eps=null", "AdamW takes eps as float"]),
        (["data.missing.test.audio=much"], ["data.missing.test.audio=much does not fit"]),
        (["trainer.max_epochs=1.5"], ["trainer.max_epochs=1.5", "int"]),
        (["data.num_workers=two"], ["data.num_workers=two", "DigitsDataModule", "int"]),
        (["data.num_workers=-1"], ["data.num_workers=-1", "at least 0"]),
        (["data.prefetch=0"], ["data.prefetch=0", "at least 1"]),
        (["model.encoder.dropout=much"], ["model.encoder.dropout=much", "PerceiverEncoder"]),
        (["callbacks.ema.decay=yes"], ["callbacks.ema.decay", "float"]),
        (["optimizer._target_=torch.optim.SGD"], ["betas", "torch.optim", "~optimizer.betas"]),
        (["optimizer.foreach=true"], ["optimizer.fused=true", "set one to false"]),
        (["trainer.limit_val_batches=0"], ["limit_val_batches=0", "check_val_every_n_epoch"]),
    ],
)
def test_impossible_run_is_refused_in_a_sentence(refusal, overrides, words):
    message = refusal(*overrides)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_unknown_modality_of_a_data_set_is_refused(refusal, spoken_digits):
    message = refusal(
        "data=fsdd", f"data.root={spoken_digits}", "modality@model.adapters=[audio,image]"
    )
    assert "image" in message
    assert "'modality@model.adapters=[audio]'" in message


def test_processes_that_do_not_know_of_each_other_are_refused(refusal, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "trainer=ddp trainer.devices=2" in refusal()


def test_checkpoint_of_another_model_is_refused_before_training(refusal, compose_run, tmp_path):
    run_training(compose_run(*SHORT, "test=false", "model.encoder.num_latents=5"))
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    message = refusal(f"ckpt_path={path}")
    assert "belongs to another model: its model.encoder.latents is (5, 96)" in message


def test_checkpoint_of_another_optimiser_is_refused_before_training(refusal, compose_run, tmp_path):
    run_training(compose_run(*SHORT, "test=false"))
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    message = refusal(f"ckpt_path={path}", "optimizer=lamb")
    assert "trained by torch.optim.AdamW" in message
    assert "timm.optim.Lamb" in message
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["optimizer_states"]
    torch.save(checkpoint, path)
    assert "weights alone" in refusal(f"ckpt_path={path}")
    run_training(compose_run(f"ckpt_path={path}", "fit=false", *SHORT))


def test_script_prints_one_sentence_and_keeps_the_traceback(run_script, tmp_path):
    done = run_script("train.py", "data.num_classes=9", f"hydra.run.dir={tmp_path}/run", status=1)
    assert "data.num_classes=null" in error_of(done)
    assert str(tmp_path / "run" / "error.log") in done.stderr
    assert "Traceback" in (tmp_path / "run" / "error.log").read_text()


def test_run_folder_that_cannot_be_written_is_named(run_script):
    done = run_script("train.py", "hydra.run.dir=/dev/null/run", status=1)
    assert "/dev/null" in error_of(done)
