"""The confusion picture and the table of predictions of a test."""

import csv

import pytest
import torch
from PIL import Image
from sklearn.metrics import precision_recall_fscore_support
from torch import nn
from torch.utils.data import DataLoader

from perceiver.callbacks import ConfusionMatrix, PredictionTable, reports
from perceiver.types import Batch

NAMES = ["cat", "dog", "emu"]
# Ten examples: the label, the answer, and whether the example has the modality.
ACTUAL = [0, 0, 0, 0, 1, 1, 2, 2, 2, 1]
ANSWER = [0, 0, 1, 0, 1, 2, 2, 2, 0, 1]
HERE = [True, True, False, True, True, True, True, False, True, True]
COUNTS = [[3, 1, 0], [0, 2, 1], [1, 0, 2]]


@pytest.fixture
def sure_task(task):
    """A task that answers with the place of the 1 in its input, sure to e²/(e² + 2)."""
    with torch.no_grad():
        nn.init.zeros_(task.model.linear.bias)
        task.model.linear.weight.copy_(2 * torch.eye(3))
    return task


def examples(*, with_ids: bool = True, with_presence: bool = True) -> DataLoader:
    made = []
    for rows in (slice(0, 4), slice(4, 5), slice(5, 10)):
        made.append(
            Batch(
                inputs={"x": torch.eye(3)[ANSWER[rows]]},
                present={"x": torch.tensor(HERE[rows])} if with_presence else {},
                targets={"target": torch.tensor(ACTUAL[rows])},
                ids=[f"file {i}" for i in range(10)][rows] if with_ids else [],
            )
        )
    return DataLoader(made, batch_size=None)


@pytest.fixture
def figures(monkeypatch):
    """The (counts, figure) that are drawn."""
    drawn, draw = [], reports._draw

    def spy(counts, names):
        drawn.append((counts, draw(counts, names)))
        return drawn[-1][1]

    monkeypatch.setattr(reports, "_draw", spy)
    return drawn


def test_the_confusion_picture_shows_the_counts_of_the_test(sure_task, trainer, tmp_path, figures):
    folder = tmp_path / "run" / "deep"
    callback = ConfusionMatrix(class_names=NAMES, folder=str(folder))
    run = trainer(callback)
    for _ in range(2):  # a second test starts anew
        run.test(sure_task, examples(), verbose=False)
    assert [counts.tolist() for counts, _ in figures] == [COUNTS, COUNTS]
    with Image.open(folder / "confusion.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 200


def test_each_class_has_its_figures(sure_task, trainer, tmp_path):
    names = [*NAMES[:2], "$\\notacommand$" + 70 * "u"]
    callback = ConfusionMatrix(class_names=names, folder=str(tmp_path))
    trainer(callback).test(sure_task, examples(), verbose=False)
    expected = precision_recall_fscore_support(ACTUAL, ANSWER)
    with (tmp_path / "classes.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["class", "precision", "recall", "f1", "examples"]
    assert [row[0] for row in rows] == names
    for column, figures in enumerate(expected, start=1):
        found = [float(row[column]) for row in rows]
        assert found == pytest.approx(figures.tolist(), abs=1e-4)


def test_rows_of_the_picture_are_the_actual_classes(figures):
    figure = reports._draw(torch.tensor(COUNTS), NAMES)
    (axes,) = figure.axes
    written = {(round(t.get_position()[1]), round(t.get_position()[0])): t for t in axes.texts}
    expected = {(i, j): n for i, row in enumerate(COUNTS) for j, n in enumerate(row) if n}
    assert {place: int(text.get_text()) for place, text in written.items()} == expected
    assert axes.get_title() == "test: 7 of 10 right"
    assert axes.get_ylabel() == "actual"
    assert [label.get_text() for label in axes.get_yticklabels()] == NAMES
    shares = torch.as_tensor(axes.images[0].get_array())
    assert shares[0].tolist() == [0.75, 0.25, 0.0]


def test_a_class_without_examples_and_many_classes_are_drawn():
    counts = torch.zeros(43, 43, dtype=torch.long)
    counts[1, 2] = 5
    (axes,) = reports._draw(counts, [str(i) for i in range(43)]).axes
    assert not axes.texts
    assert torch.as_tensor(axes.images[0].get_array()).sum() == 1


def rows_of(path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_the_table_lists_what_was_there_what_was_answered_and_how_surely(
    sure_task, trainer, tmp_path
):
    run = trainer(PredictionTable(class_names=NAMES, folder=str(tmp_path / "run")))
    for _ in range(2):
        run.test(sure_task, examples(), verbose=False)
    header, *rows = rows_of(tmp_path / "run" / "predictions.csv")
    assert header == ["example", "actual", "predicted", "confidence", "modalities"]
    confidence = str(round(torch.tensor([2.0, 0, 0]).softmax(0)[0].item(), 4))
    assert rows == [
        [f"file {i}", NAMES[ACTUAL[i]], NAMES[ANSWER[i]], confidence, "x" if HERE[i] else ""]
        for i in range(10)
    ]


def test_the_table_ends_at_the_number_asked_for_and_counts_nameless_examples(
    sure_task, trainer, tmp_path
):
    callback = PredictionTable(class_names=NAMES, folder=str(tmp_path), num_examples=7)
    loader = examples(with_ids=False, with_presence=False)
    trainer(callback).test(sure_task, loader, verbose=False)
    _, *rows = rows_of(tmp_path / "predictions.csv")
    assert [row[0] for row in rows] == [str(i) for i in range(7)]
    assert {row[4] for row in rows} == {"x"}


def test_examples_whose_class_is_not_known_are_listed_and_not_confused(
    sure_task, trainer, tmp_path, figures
):
    batch = Batch(
        inputs={"x": torch.eye(3)[[0, 1]]},
        targets={"target": torch.tensor([0, 0])},
        known={"target": torch.tensor([True, False])},
    )
    folder = str(tmp_path)
    reports_ = [ConfusionMatrix(class_names=NAMES, folder=folder)]
    reports_ += [PredictionTable(class_names=NAMES, folder=folder)]
    trainer(*reports_).test(sure_task, DataLoader([batch], batch_size=None), verbose=False)
    assert figures[0][0].tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    with (tmp_path / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["actual"], row["predicted"]) for row in rows] == [("cat", "cat"), ("", "dog")]
