"""resume=auto goes on from the last checkpoint that is as it was written."""

import pytest
import torch
from omegaconf import OmegaConf

from perceiver.callbacks.checkpoint import kept
from runner.checkpoints import read_checkpoint
from runner.resuming import checkpoint_to_resume


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for number, name in enumerate(("last-2.ckpt", "last-1.ckpt", "last.ckpt")):
        content = {"state_dict": {"weight": torch.full((1009,), float(number))}}
        torch.save(content, tmp_path / "checkpoints" / name)
    return tmp_path / "checkpoints"


@pytest.fixture
def found(tmp_path):
    def find(**options):
        known = {"resume": "auto", "ckpt_path": None, "paths": {"run_dir": str(tmp_path)}}
        return checkpoint_to_resume(OmegaConf.create(known | options))

    return find


def flip_a_bit(path, value):
    content = bytearray(path.read_bytes())
    place = content.index(torch.tensor([value] * 5).numpy().tobytes())
    content[place + 7] ^= 1
    path.write_bytes(content)


def test_the_last_one_is_taken(folder, found):
    assert found() == str(folder / "last.ckpt")
    assert kept(folder) == [folder / n for n in ("last.ckpt", "last-1.ckpt", "last-2.ckpt")]


@pytest.mark.parametrize("damage", ["flipped", "torn", "empty"])
def test_a_damaged_one_is_noticed_and_the_one_before_it_taken(folder, found, damage):
    path = folder / "last.ckpt"
    if damage == "flipped":
        flip_a_bit(path, 2.0)
        torch.load(path, weights_only=True)  # torch sees nothing
    else:
        path.write_bytes(path.read_bytes()[: 1009 if damage == "torn" else 0])
    with pytest.warns(UserWarning, match=r"last\.ckpt is not a checkpoint .*before it"):
        assert found() == str(folder / "last-1.ckpt")
    with pytest.raises(ValueError, match="damaged"):
        read_checkpoint(path)


def test_a_run_without_a_whole_one_is_not_begun_anew_unasked(folder, found):
    for path in kept(folder):
        path.write_bytes(b"")
    before = pytest.warns(UserWarning, match="before it")
    with before, pytest.raises(ValueError, match=r"none of last\.ckpt, .*whole"):
        found()


def test_a_run_without_any_begins(found):
    assert found() is None


def test_without_resume_the_path_counts(folder, found):
    assert found(resume=None, ckpt_path="some.ckpt") == "some.ckpt"


@pytest.mark.parametrize(
    ("options", "words"),
    [({"resume": "yes"}, "auto or null"), ({"ckpt_path": "some.ckpt"}, "give one of them")],
)
def test_a_contradiction_is_a_sentence(found, options, words):
    with pytest.raises(ValueError, match=words):
        found(**options)


@pytest.mark.slow
def test_the_same_command_goes_on(run_script, tmp_path):
    command = ["train.py", "resume=auto", f"hydra.run.dir={tmp_path}/run", "debug=fast"]
    # What debug=fast leaves out.
    command += ["trainer.fast_dev_run=false", "trainer.limit_train_batches=2", "logger=csv"]
    first = run_script(*command, "trainer.max_epochs=1")
    assert "beginning anew" in first.stdout + first.stderr
    again = run_script(*command, "trainer.max_epochs=2")
    assert "going on from" in again.stdout + again.stderr
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 4
    assert "add hydra.run.dir=FOLDER" in run_script("train.py", "resume=auto", status=1).stderr
