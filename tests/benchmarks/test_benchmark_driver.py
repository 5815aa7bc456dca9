"""Turns, statistics, and the refusal of unequal work."""

from __future__ import annotations

import sys

import pytest
import torch

from benchmarks import driver
from benchmarks.configurations import CONFIGURATIONS
from benchmarks.contestants import Contestant
from benchmarks.driver import Pool, compare, summary


class FakeWorker:
    def __init__(self, name, log, output):
        self.name, self.log, self.output = name, log, output
        self.floors = [0.5, 0.25, 0.125]

    def ask(self, do, **arguments):
        self.log.append((self.name, do, arguments.get("kind"), arguments.get("iterations")))
        if self.output is None:
            return {"error": "RuntimeError: no"}
        if do == "floor":
            return {"products": 0.125, "operators": self.floors.pop()}
        return {
            "build": {"parameters": 7, "first_seconds": 1.0, "output": list(self.output)},
            "memory": {
                "allocated": 3,
                "rise": 4,
                "total": 5,
                "seconds": 0.25,
                "first_seconds": 2.0,
            },
            "time": {"seconds": [0.25] * (arguments.get("iterations") or 1)},
        }[do]


class FakePool:
    def __init__(self, outputs):
        self.log, self.peak_measured = [], 0
        self.workers = {name: FakeWorker(name, self.log, out) for name, out in outputs.items()}

    def worker(self, name, who=None):
        if name not in self.workers:
            raise FileNotFoundError(driver.install_hint(who.library))
        return self.workers[name]

    def measure_peaks(self):
        self.peak_measured += 1
        return {"fp32": [5.0, 1.0, 2.0][self.peak_measured % 3]}


def run(outputs, **options):
    pool = FakePool(outputs)
    who = [Contestant.parse(name) for name in options.pop("who", outputs)]
    return pool, compare(pool, CONFIGURATIONS["latents"], who, **{"rounds": 3} | options)


def test_contestants_step_in_turns_whose_order_rotates():
    pool, _ = run({"ours": [1.0], "hf": [1.0]}, steps=("train",), turn_seconds=0.5)
    turns = [entry for entry in pool.log if entry[1] == "time"]
    assert [name for name, *_ in turns] == ["ours", "hf", "hf", "ours", "ours", "hf"]
    assert {iterations for *_, iterations in turns} == {2}
    assert pool.peak_measured == 3


def test_no_round_begins_after_the_time_is_up_but_three_do():
    pool, _ = run({"ours": [1.0]}, rounds=7, seconds=0.0)
    assert pool.peak_measured == 3


def test_times_and_memory_reach_the_results():
    _, found = run({"ours": [1.0]}, steps=("train",))
    entry = found["contestants"]["ours"]
    assert entry["seconds"]["train"] == {"median": 0.25, "low": 0.25, "high": 0.25, "count": 6}
    assert entry["memory"] == {"train": 3}
    assert entry["resident"] == {"train": 4}
    assert entry["total_memory"] == {"train": 5}
    assert entry["first_seconds"] == 3.0  # forward, and the first training step
    assert found["flops"]["train"] == CONFIGURATIONS["latents"].flops("train")


def test_the_peak_of_a_configuration_is_the_median_over_its_turns():
    _, found = run({"ours": [1.0]})
    assert found["peaks"] == {"fp32": 2.0}


def test_floors_are_measured_of_this_project_as_it_is_and_not_compiled():
    others = ("ours+compile", "ours+regions", "ours+kernel=dense", "hf")
    who = {label: [1.0] for label in ("ours", *others)}
    pool, found = run({**who, "ours alone": [1.0]}, who=list(who), floors=True)
    floors = {label: entry.get("floor") for label, entry in found["contestants"].items()}
    assert floors == dict.fromkeys(who) | {
        "ours": {"train": {"products": 0.125, "operators": 0.25}}
    }
    turns = [what for _, what, kind, _ in pool.log if kind == "train" and what != "memory"]
    assert turns == 3 * [*["time"] * len(who), "floor"], "in every round, beside the steps"
    assert "floor" not in run({"ours": [1.0]})[1]["contestants"]["ours"]


def test_contestants_that_answer_otherwise_are_refused():
    with pytest.raises(ValueError, match=r"hf is 1\.0e-02 away from ours"):
        run({"ours": [1.0, 0.0], "hf": [1.0, 0.01]})


@pytest.mark.parametrize("label", ["hf+bf16-mixed", "lucidrains"])
def test_rounded_or_unequal_weights_are_not_held_to_the_same_outputs(label):
    _, found = run({"ours": [1.0, 0.0], label: [1.0, 0.01]})
    assert "seconds" in found["contestants"][label]


def test_a_peer_that_is_not_installed_is_left_out_with_the_command_that_installs_it():
    _, found = run({"ours": [1.0]}, who=["ours", "krasserm"])
    hint = found["contestants"]["krasserm"]["absent"]
    assert "python -m benchmarks.peers install krasserm" in hint


def test_a_contestant_that_fails_says_why_and_the_others_go_on():
    _, found = run({"ours": [1.0], "hf": None})
    assert found["contestants"]["hf"] == {"error": "RuntimeError: no"}
    assert "seconds" in found["contestants"]["ours"]


def test_a_summary_holds_median_and_quartiles():
    assert summary([5, 1, 3, 2, 4]) == {"median": 3, "low": 1.5, "high": 4.5, "count": 5}
    assert summary([2.0]) == {"median": 2.0, "low": 2.0, "high": 2.0, "count": 1}


def test_a_worker_answers_from_a_process_of_its_own_which_keeps_freed_memory():
    with Pool(threads=1) as pool:
        worker = pool.worker("ours")
        assert worker.ask("dance").keys() == {"error"}
        assert worker.ask("versions")["torch"] == torch.__version__
        if sys.platform == "linux":  # glibc's allocator
            with open(f"/proc/{worker.process.pid}/environ", encoding="utf-8") as file:
                assert "MALLOC_TRIM_THRESHOLD_" in file.read()
