"""Every run has a folder of its own."""

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runner.folders import OwnFolder, unused

PROJECT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in ("WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_a_folder_that_is_taken_is_not_given_again(tmp_path):
    wanted = str(tmp_path / "day" / "12-00-00")
    assert [unused(wanted) for _ in range(3)] == [wanted, f"{wanted}-2", f"{wanted}-3"]
    assert (tmp_path / "day" / "12-00-00-3").is_dir()


@pytest.mark.parametrize("name", ["WORLD_SIZE", "SLURM_NTASKS"])
def test_processes_of_one_run_share_their_folder(tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, "2")
    wanted = str(tmp_path / "run")
    assert unused(wanted) == unused(wanted) == wanted


def test_a_folder_that_cannot_be_made_is_left_to_hydra():
    assert unused("/dev/null/run") == "/dev/null/run"


def begun(folder, *overrides):
    hydra = {"run": {"dir": str(folder)}, "overrides": {"hydra": list(overrides)}}
    config = OmegaConf.create({"hydra": hydra})
    OwnFolder().on_run_start(config)
    return config.hydra.run.dir


def test_a_folder_that_was_asked_for_is_taken_as_it_is(tmp_path):
    assert begun(tmp_path, f"hydra.run.dir={tmp_path}") == str(tmp_path)
    assert begun(tmp_path) == f"{tmp_path}-2"
    assert begun(".") == "."


def test_no_text_of_a_config_makes_a_folder(tmp_path):
    config = OmegaConf.create({"text": f"${{unused:{tmp_path}/made}}"})
    with pytest.raises(OmegaConfBaseException, match="Unsupported interpolation type unused"):
        str(config.text)
    assert not (tmp_path / "made").exists()


@pytest.mark.slow
def test_runs_that_begin_together_have_a_folder_each(tmp_path):
    command = [sys.executable, str(PROJECT / "train.py"), "fit=false"]  # ends at once
    options = {"cwd": tmp_path, "stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    runs = [subprocess.Popen(command, **options) for _ in range(3)]
    assert [run.wait(timeout=300) for run in runs] == [1, 1, 1]
    folders = [path.parent for path in tmp_path.glob("outputs/*/*/error.log")]
    assert len(folders) == 3
