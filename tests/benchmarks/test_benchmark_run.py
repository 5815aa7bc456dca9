"""The command line: who runs, and what is written down of the command."""

from __future__ import annotations

import json
import os

import pytest

from benchmarks import ablations, machine, run, scaling, training
from benchmarks.configurations import CONFIGURATIONS
from benchmarks.contestants import Contestant
from perceiver.ops import matmul as products


def test_one_precision_for_all_leaves_each_contestant_once():
    who = run.contestants(["ours", "ours+bf16-mixed", "hf"], "bf16-true", False)
    assert [w.label for w in who] == ["ours+bf16-true", "hf+bf16-true"]


def test_compile_is_added_to_all():
    labels = [w.label for w in run.contestants(["ours", "hf+compile"], None, True)]
    assert labels == ["ours+compile", "hf+compile"]


def test_the_command_names_no_place_of_this_machine(monkeypatch):
    words = "/x/y/run.py --rounds=3 --json=/x/r.json --log l --data-root ../data --only bytes"
    monkeypatch.setattr("sys.argv", words.split())
    wanted = "python -m benchmarks.run --rounds 3 --data-root DIR --only bytes"
    assert run.command() == wanted


def test_every_ablation_is_a_contestant_and_the_first_changes_nothing():
    for name in ablations.ABLATIONS:
        assert name in CONFIGURATIONS
        rows = [Contestant.parse("+".join(["ours", *word])) for word in ablations.words(name)]
        assert rows[0] == Contestant("ours")
        assert len({row.label for row in rows}) == len(rows)


@pytest.mark.slow
def test_a_run_writes_its_results_and_prints_a_table(tmp_path, monkeypatch, capsys):
    file = tmp_path / "results.json"
    words = f"run --quick --threads 1 --only latents --contestants ours --json {file}"
    monkeypatch.setattr("sys.argv", words.split())
    run.main()
    results = json.loads(file.read_text())
    found = results["configurations"]["latents"]["contestants"]["ours"]
    assert found["seconds"]["train"]["count"] == 1
    assert min(found["seconds"][kind]["low"] for kind in ("train", "forward")) > 0
    assert found["memory"]["train"] >= 0
    assert found["total_memory"]["train"] > 1e7
    assert results["configurations"]["latents"]["peaks"]["fp32"] > 1e8
    assert results["machine"]["peaks"].keys() == {"fp32", "bf16", "fp32 layers", "bf16 layers"}
    assert "| ours |" in capsys.readouterr().out
    assert str(tmp_path) not in file.read_text()


KINDS = {run: "peers", scaling: "scaling", training: "training", ablations: "ablations"}


@pytest.mark.parametrize("command", KINDS)
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"machine": {"processor": "another CPU", "cores": 3}}, "on another CPU, 3 cores and this"),
        ({}, "on 99 threads and this is 1 threads"),
        ({"kind": "data"}, "holds no"),
    ],
)
def test_only_results_of_this_machine_and_kind_are_added_to(
    command, changed, said, tmp_path, monkeypatch, capsys
):
    file = tmp_path / "held.json"
    held = {"kind": KINDS[command], "machine": machine.describe("cpu", 99), "command": ""} | changed
    file.write_text(json.dumps(held))
    monkeypatch.setattr("sys.argv", f"command --quick --threads 1 --add --json {file}".split())
    with pytest.raises(SystemExit):
        command.main()
    error = capsys.readouterr().err
    assert error.startswith("error: held.json")
    assert said in error
    assert json.loads(file.read_text()) == held


@pytest.mark.parametrize("command", KINDS)
def test_a_device_that_is_not_there_is_said_before_anything_runs(command, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["command", "--quick", "--device", "cuda"])
    with pytest.raises(SystemExit):
        command.main()
    assert "error: --device cuda: torch finds no CUDA device" in capsys.readouterr().err


def test_a_quick_run_takes_no_record_s_place():
    quick = run.parser("").parse_args(["--quick"])
    assert machine.RESULTS not in run.destination("peers", quick)[0].parents
    assert machine.RESULTS in run.destination("peers", run.parser("").parse_args([]))[0].parents


def test_an_added_record_tells_all_versions_that_it_is_of():
    before = {"versions": {"torch": "2.0", "hf": "1"}, "peaks": {"fp32": 3.0, "bf16": 5.0}}
    now = {"cores": 2, "versions": {"torch": "2.1", "io": "7"}, "peaks": {"fp32": 4.0}}
    once = machine.joined(before, now)
    assert once["versions"] == {"torch": "2.0 and 2.1", "hf": "1", "io": "7"}
    assert once["peaks"] == {"fp32": 4.0, "bf16": 5.0}
    assert machine.joined(once, now) == once
    assert machine.joined({}, now) == now


def test_each_machine_has_a_folder_of_its_own(monkeypatch):
    monkeypatch.setattr(machine, "processor", lambda: "Some(R) CPU @ 2 GHz, AVX512")
    path = machine.place("peers", "cpu")
    folder = f"some-r-cpu-2-ghz-avx512-{os.cpu_count()}-cores"
    assert path.relative_to(machine.RESULTS).as_posix() == f"{folder}/peers.json"


@pytest.mark.slow
def test_a_later_run_is_added_to_an_earlier_one_only_if_asked(tmp_path, monkeypatch):
    file = tmp_path / "results.json"
    words = ["run", "--quick", "--threads", "1", "--json", str(file), "--contestants", "ours"]
    seen = []
    audio = ["--only", "audio"]
    for more in (
        ["--only", "latents"],
        [*audio, "--add"],
        ["--seconds", "1", *audio, "--add"],
        audio,
    ):
        monkeypatch.setattr("sys.argv", [*words, *more])
        run.main()
        results = json.loads(file.read_text())
        seen.append((set(results["configurations"]), len(results["command"].splitlines())))
    # The command whose numbers were measured again has gone with them.
    both = ({"latents", "audio"}, 2)
    assert seen == [({"latents"}, 1), both, both, ({"audio"}, 1)]


def test_a_wrong_contestant_is_refused_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["run", "--contestants", "theirs"])
    with pytest.raises(SystemExit):
        run.main()
    assert capsys.readouterr().err.startswith("error: unknown library 'theirs'")


def test_a_generation_that_a_name_leaves_open_is_told(monkeypatch):
    monkeypatch.setattr(products, "_processor", lambda: "AuthenticAMD\ncpu family\t: 25")
    assert ", family 25, " in machine.processor()
    monkeypatch.setattr(products, "_processor", lambda: "GenuineIntel\ncpu family\t: 6")
    assert "family" not in machine.processor()
