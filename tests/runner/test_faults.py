"""What goes wrong with a machine, a checkpoint or a second run is one sentence."""

import multiprocessing
import zipfile

import pytest
import torch
from yaml import YAMLError

from runner.checkpoints import read_checkpoint
from runner.errors import clear_errors
from runner.processes import alone_in
from runner.rebuild import _check_shapes, rebuild
from runner.trusted import check_size
from tests.conftest import PROJECT


def test_two_runs_in_one_folder_are_refused_one_after_another_not(tmp_path, monkeypatch):
    monkeypatch.setattr("runner.processes._PAUSE", 0.0)

    def try_it(pipe):
        try:
            with alone_in(tmp_path / "run"):
                pipe.send("")
        except ValueError as error:
            pipe.send(str(error))

    def other():
        here, there = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=try_it, args=(there,))
        process.start()
        said = here.recv()
        process.join()
        return said

    with alone_in(tmp_path / "run"):
        assert "another run is writing to" in other()
    assert other() == ""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "has died"),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), "lower data.num_w"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "lower data.batch_size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "no memory left"),
        (MemoryError(), "no memory left"),
        (YAMLError("while parsing a flow node\nexpected ']'"), "flow node expected"),
        (ValueError("Unable to configure handler 'file'"), "run folder cannot be written"),
    ],
)
def test_faults_of_the_machine_say_what_to_do(capsys, error, words):
    with pytest.raises(SystemExit) as ended, clear_errors(PROJECT / "conf"):
        raise error
    assert ended.value.code == 1
    said = capsys.readouterr().err.splitlines()[0]
    assert said.startswith("error: ")
    assert words in said


def test_other_errors_keep_their_traceback():
    with pytest.raises(RuntimeError, match="a bug"), clear_errors(PROJECT / "conf"):
        raise RuntimeError("a bug")


@pytest.fixture
def saved(tmp_path):
    def save(content):
        torch.save(content, tmp_path / "some.ckpt")
        return tmp_path / "some.ckpt"

    return save


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1], "no state_dict"),
        ({"state_dict": [1]}, "no state_dict"),
        ({"state_dict": {"a": 1}}, "more than tensors"),
        ({"state_dict": {1: torch.zeros(1)}}, "more than tensors"),
        ({"state_dict": {}, "run_config": [1]}, "does not say how to rebuild"),
        ({"state_dict": {}, "run_config": {"task": 1, "data": {}}}, "does not say how"),
        ({"state_dict": {}, "run_config": {"task": {}, "data": {}}}, "does not say how"),
        ({"state_dict": {}, "run_config": {"task": {"model": 3}, "data": {}}}, "does not say how"),
    ],
)
def test_a_checkpoint_of_another_form_is_refused(saved, content, words):
    with pytest.raises(ValueError, match=words):
        rebuild(saved(content))


def test_a_checkpoint_that_inflates_is_refused_unread(saved, tmp_path):
    path = saved({"state_dict": {"a": torch.zeros(100_003)}})
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "b.ckpt", "w", 8) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert (tmp_path / "b.ckpt").stat().st_size < path.stat().st_size / 100
    with pytest.raises(ValueError, match=r"b\.ckpt is not .* is compressed"):
        read_checkpoint(tmp_path / "b.ckpt")
    assert read_checkpoint(path)["state_dict"]["a"].shape == (100_003,)


def test_a_config_that_holds_itself_many_times_comes_to_an_end():
    config = {}
    for _ in range(45):
        config = {"a": config, "b": config}
    with pytest.raises(ValueError, match="more than 1,000,000 values"):
        check_size(config)


def test_shapes_are_compared_before_memory_is_taken():
    told = {
        "_target_": "torch.nn.modules.linear.Linear",
        "in_features": 10**9,
        "out_features": 10**7,
    }
    weights = {"model.weight": torch.zeros(3, 2), "model.bias": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"weight is \(3, 2\), its config says \(10000000, 10000"):
        _check_shapes(weights, {"model": told})
    _check_shapes(weights, {"model": told | {"in_features": 2, "out_features": 3}})
