"""A file that is replaced is the old one or the new one, whatever happens in between."""

import errno
import os
import resource
import shutil
import signal
import stat
import tempfile
import threading
from contextlib import contextmanager

import pytest
import pytorch_lightning as pl
import torch

from datamodules.layouts.shards.layout import write_file
from perceiver import files
from perceiver.callbacks import ConfusionMatrix, PredictionTable, WholeCheckpointIO
from perceiver.files import replacing
from runner.report import write_results
from runner.training import save_config

OLD, NEW = b"old" * 7, b"new" * 100_003


@contextmanager
def process():
    """The body runs in a process of its own; yields True there."""
    child = os.fork()
    if child:
        yield False
        _, status = os.waitpid(child, 0)
        assert status == signal.SIGKILL, status
    else:
        try:
            yield True
        finally:
            os._exit(1)  # it should have been killed before


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "some.file").write_bytes(OLD)
    return tmp_path / "some.file"


def others(path):
    return [entry for entry in path.parent.iterdir() if entry != path]


def test_the_new_file_takes_the_place_of_the_old_one_at_the_end(path):
    with replacing(path) as file:
        file.write(NEW)
        file.flush()
        assert path.read_bytes() == OLD
    assert path.read_bytes() == NEW
    assert not others(path)


def test_it_can_be_read_by_whom_the_user_lets_read_files(tmp_path):
    (tmp_path / "usual").touch()
    with replacing(tmp_path / "folder" / "new"):
        pass
    modes = [stat.S_IMODE((tmp_path / n).stat().st_mode) for n in ("usual", "folder/new")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_alone(path, error):
    with pytest.raises(error), replacing(path) as file:  # noqa: PT012
        file.write(NEW)
        raise error
    assert path.read_bytes() == OLD
    assert not others(path)


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_kill_leaves_the_old_file_and_the_next_write_removes_the_rest(path, where, monkeypatch):
    with process() as is_child:
        if is_child:
            if where != "write":
                setattr(os, where, die)
            with replacing(path) as file:
                file.write(NEW)
                if where == "write":
                    die()
    assert path.read_bytes() == OLD
    assert len(others(path)) == 1
    with replacing(path.with_name("another.file")):
        pass
    assert others(path) == [path.with_name("another.file")]


def test_what_another_still_writes_is_no_leftover(path):
    with replacing(path) as file:
        file.write(NEW)
        with replacing(path.with_name("another.file")) as other:
            other.write(OLD)
    assert path.read_bytes() == NEW
    assert path.with_name("another.file").read_bytes() == OLD


def test_a_file_that_is_taken_for_a_leftover_before_it_is_locked_is_made_again(path, monkeypatch):
    lock, taken = files._lock, []

    def late(file, *, wait):
        if wait and not taken:
            taken.append(file.name)
            os.unlink(file.name)
        return lock(file, wait=wait)

    monkeypatch.setattr(files, "_lock", late)
    with replacing(path) as file:
        file.write(NEW)
    assert len(taken) == 1
    assert path.read_bytes() == NEW


def test_many_may_write_the_same_file_at_once(path):
    contents = [bytes([n]) * 100_003 for n in range(4)]

    def write(content):
        for _ in range(5):
            with replacing(path) as file:
                file.write(content)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert path.read_bytes() in [OLD, *contents]
    assert path.read_bytes() in contents
    assert not others(path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_sentence(path, number, monkeypatch):
    def full(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"The disk of .* is full: some\.file was not") as told:  # noqa: SIM117
        with replacing(path) as file:
            file.write(NEW)
    assert "\n" not in str(told.value)
    assert path.read_bytes() == OLD
    assert not others(path)


def results(folder, value):
    write_results(folder / "results.json", {"value": value})


def config(folder, value):
    save_config({"value": value}, folder)


def predictions(folder, value):
    table = PredictionTable(class_names=["a"], folder=str(folder))
    table.rows = [[str(value), "a", "a", 1.0, "image"]]
    table.on_test_end(pl.Trainer(accelerator="cpu", logger=False), pl.LightningModule())


def confusion(folder, value):
    matrix = ConfusionMatrix(class_names=["a", "b"], folder=str(folder))
    matrix.matrix.update(torch.tensor([value]), torch.tensor([0]))
    matrix.on_test_end(pl.Trainer(accelerator="cpu", logger=False), pl.LightningModule())


def description(folder, value):
    write_file(str(folder), "dataset.json", str(value).encode())


@pytest.mark.parametrize("write", [results, config, predictions, confusion, description])
def test_what_a_run_leaves_is_replaced_at_once(tmp_path, write, monkeypatch):
    def content():
        return {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    write(tmp_path, 0)
    before, kept = content(), os.replace
    assert all(before.values())

    def late(part, path):
        assert os.path.getsize(part) > 0
        raise OSError("too late")

    monkeypatch.setattr(os, "replace", late)
    with pytest.raises(OSError, match="too late"):
        write(tmp_path, 1)
    assert content() == before
    monkeypatch.setattr(os, "replace", kept)
    write(tmp_path, 1)
    assert all(value != before[name] for name, value in content().items())


# Checkpoints.


@pytest.fixture
def elsewhere(monkeypatch):
    """Temporary files lie on another file system than the test's."""
    try:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            monkeypatch.setattr(tempfile, "tempdir", folder)
            yield folder
    except OSError:
        pytest.skip("there is no other file system")


def saved(path):
    return torch.load(path, weights_only=True)["step"].unique().tolist()


def test_a_checkpoint_is_whole_where_temporary_files_lie_elsewhere(tmp_path, elsewhere):
    path, step = tmp_path / "checkpoints" / "last.ckpt", torch.ones(100_003)
    if os.stat(elsewhere).st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("there is no other file system")
    WholeCheckpointIO().save_checkpoint({"step": step}, str(path))
    with process() as is_child:
        if is_child:
            shutil.copyfileobj = shutil.copyfile = shutil.copy2 = os.fsync = die
            WholeCheckpointIO().save_checkpoint({"step": 2 * step}, str(path))
    assert saved(path) == [1]
    WholeCheckpointIO().save_checkpoint({"step": 3 * step}, f"file://{path}")
    assert saved(path) == [3]
    assert not others(path)
    assert not os.listdir(elsewhere)


def test_a_checkpoint_that_breaks_off_half_way_leaves_the_one_before(tmp_path):
    path = tmp_path / "last.ckpt"
    WholeCheckpointIO().save_checkpoint({"step": torch.ones(7)}, path)
    child = os.fork()
    if not child:
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_021, 50_021))
            WholeCheckpointIO().save_checkpoint({"step": torch.ones(100_003)}, path)
        except OSError as error:
            os._exit(error.errno)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == errno.EFBIG
    assert saved(path) == [1]
    assert not others(path)


def test_a_checkpoint_at_a_url_is_written_by_lightning():
    io = WholeCheckpointIO()
    io.save_checkpoint({"step": torch.ones(7)}, "memory://run/last.ckpt")
    assert io.load_checkpoint("memory://run/last.ckpt", weights_only=True)["step"].sum() == 7
    io.remove_checkpoint("memory://run/last.ckpt")


def test_a_run_saves_whole_checkpoints(compose_run):
    from hydra.utils import instantiate

    trainer = instantiate(compose_run("logger=none").trainer)
    assert isinstance(trainer.strategy.checkpoint_io, WholeCheckpointIO)
