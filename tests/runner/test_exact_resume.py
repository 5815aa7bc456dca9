"""The default job, cut off anywhere, ends with the very weights of the job that nobody stopped."""

import pytest
import pytorch_lightning as pl
import torch

from runner import training
from runner.training import run_training

SHORT = (
    "trainer.max_epochs=3",
    "trainer.limit_train_batches=5",
    "trainer.limit_val_batches=2",
    "trainer.enable_progress_bar=false",
    "callbacks.last.every_n_train_steps=1",
    "test=false",
)


class Cut(Exception): ...


class CutAt(pl.Callback):
    """Ends a run as a kill would, before a step or in the validation after it."""

    def __init__(self, step, in_validation):
        self.step, self.in_validation = step, in_validation

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step and not self.in_validation:
            raise Cut

    def on_validation_batch_start(self, trainer, *_):
        if trainer.global_step == self.step and self.in_validation:
            raise Cut


def state(folder):
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    names = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "loops")
    best = next(s for name, s in saved["callbacks"].items() if name.startswith("BestCheckpoint"))
    return [saved[name] for name in names] + [saved["lr_schedulers"], best["best_model_score"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "in_validation", "options"),
    [
        (7, False, []),
        (5, True, ["data.num_workers=2"]),
        (10, False, ["augment/image=flip_crop", "augment/mix=mixup_cutmix", "data.num_workers=2"]),
        (8, False, ["trainer.val_check_interval=0.5", "trainer.accumulate_grad_batches=2"]),
    ],
)
def test_weights_are_equal_to_the_last_bit(
    compose_run, tmp_path, monkeypatch, step, in_validation, options
):
    def run(name, *more):
        run_training(compose_run(*SHORT, *options, f"paths.run_dir={tmp_path}/{name}", *more))

    run("whole")
    with monkeypatch.context() as patch:
        build = training.build_callbacks
        cut = CutAt(step, in_validation)
        patch.setattr(training, "build_callbacks", lambda *a: [*build(*a), cut])
        with pytest.raises(Cut):
            run("part")
    run("rest", f"ckpt_path={tmp_path}/part/checkpoints/last.ckpt")
    torch.testing.assert_close(state(tmp_path / "rest"), state(tmp_path / "whole"), rtol=0, atol=0)
