"""The summary that a run prints, and the file that it leaves."""

import json

from runner.report import print_summary, write_results


def test_the_summary_tells_what_share_of_training_was_padding(capsys):
    metrics = {"val/acc": 0.5, "train/padding/audio": 0.1234, "train/padding/text": 0.5}
    rest = {"split": "val", "monitor": "acc", "parts": "modalities", "whole": "all", "files": {}}
    print_summary(metrics, **rest)
    assert "padding      audio 12.3%, text 50.0% of what training read" in capsys.readouterr().out
    print_summary({"val/acc": 0.5}, **rest)
    assert "padding" not in capsys.readouterr().out


def test_the_table_says_of_how_many_examples_a_row_is_and_compares_on_the_same_ones(capsys):
    metrics = {
        "test/acc": 0.75,
        "test/acc/image+text": 0.7,
        "test/examples": 1234.0,
        "test/examples/image+text": 917.0,
        "test/complete/acc": 0.875,
        "test/complete/acc/image+text": 0.625,
        "test/complete/examples": 811.0,
        "baseline/majority/acc": 0.3125,
    }
    print_summary(
        metrics,
        split="test",
        monitor="acc",
        parts="modalities",
        whole="all of them",
        files={},
        baselines={"baseline/majority/acc": ("always dog", 1234)},
        notes=["a note"],
    )
    out = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")] for line in out.splitlines()]
    assert ["", "image + text", "917", "0.7000", "0.6250", ""] in rows
    assert ["", "all of them", "1,234", "0.7500", "0.8750", ""] in rows
    assert ["", "baseline: always dog", "1,234", "0.3125", "", ""] in rows
    assert "of the 811 that have" in out
    assert "a note" in out


def test_results_are_json_whatever_the_numbers(tmp_path):
    values = {"a": float("nan"), "b": float("inf"), "c": 0.5, "d": "x", "e": None}
    write_results(tmp_path / "results.json", values)

    def refuse(word):
        raise AssertionError(word)

    found = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)
    assert found == {"a": None, "b": None, "c": 0.5, "d": "x", "e": None}
