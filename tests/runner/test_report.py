"""The summary that a run prints."""

from runner.report import print_summary


def test_the_summary_tells_what_share_of_training_was_padding(capsys):
    metrics = {"val/acc": 0.5, "train/padding/audio": 0.1234, "train/padding/text": 0.5}
    rest = {"split": "val", "monitor": "acc", "parts": "modalities", "whole": "all", "files": {}}
    print_summary(metrics, **rest)
    assert "padding      audio 12.3%, text 50.0% of what training read" in capsys.readouterr().out
    print_summary({"val/acc": 0.5}, **rest)
    assert "padding" not in capsys.readouterr().out
