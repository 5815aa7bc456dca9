"""What a person looks at after a test: the confusion matrix and example predictions."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from perceiver.files import replacing
from perceiver.names import cell, shown
from perceiver.types import Batch


class ConfusionMatrix(pl.Callback):
    """Draws the test's confusion matrix into the run folder and to loggers that take pictures.

    Beside it, `classes.csv` has the precision, recall and F1 of each class and its number of
    examples; a figure that nothing tells of is left empty.

    Args:
        class_names: names of the classes, in the order of their labels.
        folder: where `confusion.png` and `classes.csv` go.
        target: which of the batch's targets the labels are; examples without are left out.
    """

    def __init__(self, *, class_names: list[str], folder: str, target: str = "target") -> None:
        self.class_names, self.target = class_names, target
        self.path = Path(folder) / "confusion.png"
        self.matrix = MulticlassConfusionMatrix(len(class_names))

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.matrix = self.matrix.to(pl_module.device)
        self.matrix.reset()

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        known = batch.known.get(self.target, ...)
        if self.target in batch.targets:
            self.matrix.update(outputs[known], batch.targets[self.target][known])

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        counts = self.matrix.compute().cpu()
        if trainer.is_global_zero:
            _write_csv(self.path.with_name("classes.csv"), _per_class(counts, self.class_names))
            figure = _draw(counts, self.class_names)
            with replacing(self.path) as file:
                figure.savefig(file, format="png", dpi=120, bbox_inches="tight")
            for logger in trainer.loggers:
                if isinstance(logger, WandbLogger):
                    logger.log_image("test/confusion", [str(self.path)])
                elif isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_figure("test/confusion", figure, trainer.global_step)


def _draw(counts: Tensor, names: list[str]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    side = 2.5 + 0.42 * min(len(names), 40)
    figure = Figure(figsize=(side, side))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    names = [shown(name, 24) for name in names]
    axes.set_title(f"test: {int(counts.diag().sum())} of {int(counts.sum())} right")
    if len(names) <= 40:
        turn = 90 if max(map(len, names)) > 2 else 0
        # A $ in a name is no formula.
        axes.set_xticks(range(len(names)), names, rotation=turn, parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
    if len(names) <= 20:
        for row, column in counts.nonzero().tolist():
            axes.text(
                column,
                row,
                str(int(counts[row, column])),
                ha="center",
                va="center",
                color="white" if shares[row, column] > 0.5 else "black",
            )
    return figure


def _per_class(counts: Tensor, names: list[str]) -> list[list[Any]]:
    """Precision, recall, F1 and number of examples, a row a class, below a header."""
    right, predicted, actual = counts.diag(), counts.sum(0), counts.sum(1)
    rows: list[list[Any]] = [["class", "precision", "recall", "f1", "examples"]]
    for name, *figures in zip(
        names, right.tolist(), predicted.tolist(), actual.tolist(), strict=True
    ):
        hits, guesses, examples = figures
        shares = [(hits, guesses), (hits, examples), (2 * hits, guesses + examples)]
        rows.append([name, *(round(a / b, 4) if b else "" for a, b in shares), examples])
    return rows


def _write_csv(path: Path, rows: list[list[Any]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([[cell(value) for value in row] for row in rows])
    with replacing(path) as file:
        file.write(text.getvalue().encode("utf-8", errors="backslashreplace"))


class PredictionTable(pl.Callback):
    """Writes the first test examples with their predictions to `predictions.csv` and to wandb.

    Names that a spreadsheet would take for a formula begin with an apostrophe in the file.

    Args:
        class_names: names of the classes, in the order of their labels.
        folder: where `predictions.csv` goes.
        num_examples: examples listed, of the first process's share.
        target: which of the batch's targets the labels are; "" is written where it is not known.
    """

    columns = ("example", "actual", "predicted", "confidence", "modalities")

    def __init__(
        self,
        *,
        class_names: list[str],
        folder: str,
        num_examples: int = 100,
        target: str = "target",
    ) -> None:
        self.class_names, self.num_examples, self.target = class_names, num_examples, target
        self.path = Path(folder) / "predictions.csv"
        self.rows: list[list[Any]] = []

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.rows = []

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        wanted = self.num_examples - len(self.rows)
        if not trainer.is_global_zero or wanted <= 0:
            return
        actual = self._actual(batch)
        here = {name: batch.has_any([name]).tolist() for name in batch.inputs}
        seen = len(self.rows)
        for index, answer in enumerate(outputs[:wanted].cpu()):
            confidence, label = torch.max(answer, 0)
            self.rows.append(
                [
                    batch.ids[index] if batch.ids else str(seen + index),
                    actual[index],
                    self.class_names[int(label)],
                    round(float(confidence), 4),
                    "+".join(name for name, flags in here.items() if flags[index]),
                ]
            )

    def _actual(self, batch: Batch) -> list[str]:
        """The name of each example's class."""
        if self.target not in batch.targets:
            return [""] * len(batch)
        names = [self.class_names[label] for label in batch.targets[self.target].tolist()]
        if self.target not in batch.known:
            return names
        known = batch.known[self.target].tolist()
        return [name if is_known else "" for name, is_known in zip(names, known, strict=True)]

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        _write_csv(self.path, [list(self.columns), *self.rows])
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_table("test/predictions", columns=list(self.columns), data=self.rows)
