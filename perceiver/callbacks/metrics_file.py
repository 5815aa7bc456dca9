"""The curves of a run as a table, which a run that goes on continues."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.loggers.logger import rank_zero_experiment

from perceiver.files import replacing


class MetricsFile(CSVLogger):
    """Lightning's `CSVLogger`, except that a run that goes on keeps the rows that there are.

    Rows of steps that are taken again are left out, so that each step is there once.

    Args:
        resume_step: the first step that is still to be taken; None = the run is new.
        options: of Lightning's.
    """

    def __init__(self, *, resume_step: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._resume_step = resume_step

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None and self._resume_step is not None:
            self._experiment = _Continued(self.log_dir, self._resume_step)
        return super().experiment


class _Continued(ExperimentWriter):
    """Begins with the rows of steps before the given one."""

    def __init__(self, log_dir: str, step: int) -> None:
        self._step = step
        super().__init__(log_dir)

    # Lightning removes the file here.
    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if not path.is_file():
            return
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]  # a kill leaves part of a line
        rows = [row for row in csv.DictReader(io.StringIO(whole)) if self._is_before(row)]
        self.metrics_keys = sorted({*next(csv.reader(io.StringIO(whole)), []), "step"})
        self._write(rows)

    def _is_before(self, row: Mapping[str, Any]) -> bool:
        step = row.get("step") or ""
        return step.isdecimal() and int(step) < self._step

    # Lightning writes over the file, and a kill in the meantime loses it.
    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        with Path(self.metrics_file_path).open(encoding="utf-8", newline="") as file:
            self._write(list(csv.DictReader(file)))

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.metrics_keys, lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)
        with replacing(self.metrics_file_path) as file:
            file.write(text.getvalue().encode("utf-8"))
