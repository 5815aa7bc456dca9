"""What a person looks at after a test: the confusion matrix and example predictions."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from perceiver.files import replacing
from perceiver.types import Batch


class ConfusionMatrix(pl.Callback):
    """Draws the test's confusion matrix into the run folder and to loggers that take pictures.

    Args:
        class_names: names of the classes, in the order of their labels.
        folder: where `confusion.png` goes.
    """

    def __init__(self, *, class_names: list[str], folder: str) -> None:
        self.class_names = class_names
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
        assert batch.target is not None, "a test has targets"
        self.matrix.update(outputs, batch.target)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        counts = self.matrix.compute().cpu()
        if trainer.is_global_zero:
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
    axes.set_title(f"test: {int(counts.diag().sum())} of {int(counts.sum())} right")
    if len(names) <= 40:
        axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0)
        axes.set_yticks(range(len(names)), names)
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


class PredictionTable(pl.Callback):
    """Writes the first test examples with their predictions to `predictions.csv` and to wandb.

    Args:
        class_names: names of the classes, in the order of their labels.
        folder: where `predictions.csv` goes.
        num_examples: examples listed, of the first process's share.
    """

    columns = ("example", "actual", "predicted", "confidence", "modalities")

    def __init__(self, *, class_names: list[str], folder: str, num_examples: int = 100) -> None:
        self.class_names, self.num_examples = class_names, num_examples
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
        assert batch.target is not None, "a test has targets"
        here = {name: batch.has_any([name]).tolist() for name in batch.inputs}
        seen = len(self.rows)
        for index, (answer, target) in enumerate(
            zip(outputs[:wanted].cpu(), batch.target[:wanted].tolist(), strict=True)
        ):
            confidence, label = torch.max(answer, 0)
            self.rows.append(
                [
                    batch.ids[index] if batch.ids else str(seen + index),
                    self.class_names[target],
                    self.class_names[int(label)],
                    round(float(confidence), 4),
                    "+".join(name for name, flags in here.items() if flags[index]),
                ]
            )

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        import csv

        text = io.StringIO(newline="")
        csv.writer(text).writerows([self.columns, *self.rows])
        with replacing(self.path) as file:
            file.write(text.getvalue().encode("utf-8"))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_table("test/predictions", columns=list(self.columns), data=self.rows)
