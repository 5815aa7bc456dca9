"""What data call their classes, columns and files commands neither terminal nor spreadsheet."""

import csv
import io
import warnings
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure

from datamodules.core.bad_examples import BadExamples
from datamodules.core.summary import describe_targets
from perceiver.callbacks import PredictionTable, reports
from perceiver.names import cell, shown
from perceiver.tasks import SingleLabel
from runner.errors import clear_errors
from runner.prediction import _table
from runner.report import print_summary
from runner.training import quiet_lightning

STRANGE = [
    "\x1b[2Jclear",
    "two\nlines\r",
    "\x9b31mred",
    "\u202eturned",
    "[/red]",
    "[bold]cat",
    "$\\notacommand$",
    "x" * 20_000,
    "caf\udce9",
]


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_shown_is_short_and_has_nothing_but_visible_characters(name):
    assert shown(name).isprintable()
    assert len(shown(name)) <= 100


def test_common_names_are_shown_as_they_are():
    names = ["cat", "a long-haired cat, 7 years", "é: #", "猫", "🐈", "[x]", "", "a\\b"]
    assert [shown(name) for name in names] == names
    assert shown("a\x1b[2J\n") == "a\\x1b[2J\\n"
    assert shown("abcdefghijklm", 10) == "abcdef…klm"


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_of_text_is_a_formula(text):
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-1", "+0.5", "-1e-3", "cat", "a=b", "", 0.5, 7, None])
def test_other_cells_stay(value):
    assert cell(value) == value


def visible(text):
    return "".join(text.splitlines()).isprintable()


@pytest.mark.parametrize("name", STRANGE)
def test_names_are_shown_in_every_table_and_line(capsys, name):
    assert visible(describe_targets(torch.tensor([0, 1]), [name, "b"]))
    print_summary(
        {"val/acc": 0.5, f"val/acc/{name}": 0.25},
        split="val",
        monitor="acc",
        parts="modalities",
        whole=name,
        files={"run folder": Path("/")},
    )
    from rich.console import Console

    objective = SingleLabel(out_dim=2)
    Console().print(_table(torch.tensor([0.7, 0.3]), [name, "b"], objective, title=name, top=2))
    said = capsys.readouterr().out
    assert visible(said)
    if "[" in name:
        assert said.count(shown(name)) == 4


def test_a_run_folder_is_no_markup(capsys, tmp_path):
    folder = tmp_path / "run[" / "b]x"
    folder.mkdir(parents=True)
    rest = {"split": "val", "monitor": "acc", "parts": "", "whole": "all"}
    print_summary({}, **rest, files={"run folder": folder})
    assert str(folder) in capsys.readouterr().out


@pytest.mark.parametrize("name", STRANGE)
def test_an_error_and_a_warning_are_one_line(capsys, name):
    with pytest.raises(SystemExit), clear_errors(Path("conf")):
        raise ValueError(f"the class {name} is unknown")
    assert visible(capsys.readouterr().err)
    quiet_lightning()
    line = warnings.formatwarning(f"the class {name}", UserWarning, "file.py", 7, None)
    assert visible(line)
    assert len(line) < 5000


@pytest.mark.parametrize("name", STRANGE)
def test_a_picture_is_drawn_whatever_its_classes_are_called(name):
    figure = reports._draw(torch.tensor([[3, 1], [0, 2]]), [name, "b"])
    assert isinstance(figure, Figure)
    figure.savefig(io.BytesIO(), format="png")


def test_tables_for_people_hold_no_formulas(tmp_path):
    table = PredictionTable(class_names=["a"], folder=str(tmp_path))
    table.rows = [["=HYPERLINK(1)", "@a", "-1", 0.5, "image"], ["caf\udce9", "a", "a", 1.0, ""]]
    table.on_test_end(pl.Trainer(accelerator="cpu", logger=False), pl.LightningModule())
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert rows == [
        ["'=HYPERLINK(1)", "'@a", "-1", "0.5", "image"],
        ["caf\\udce9", "a", "a", "1.0", ""],
    ]
    broken = BadExamples(budget=1.0, total=7)
    for _ in range(2):
        broken.report("=1+1", "image", file="@x", reason="-it is broken")
    [row] = broken.rows()
    assert list(row.values()) == ["'=1+1", "image", "'@x", "'-it is broken"]
