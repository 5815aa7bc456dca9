"""Examples that could not be read: listed by name, counted against a budget, from any process."""

from __future__ import annotations

import csv
import io
import logging
import os
import tempfile
from pathlib import Path

from perceiver.names import cell, shown

_COLUMNS = ("id", "modality", "file", "reason")
_log = logging.getLogger(__name__)


class BadExamples:
    """A file that loader processes append to, a line each broken cell.

    One file serves the loader processes of all ranks of a machine: lines are short enough to be
    appended whole, and a process looks into the file before it reports, so each cell is named
    once (two processes at the very same time may both name it; `rows` counts it once).

    Args:
        budget: share of the examples that may be broken.
        total: examples in the data set.

    Attributes:
        path: the CSV file, a temporary one until `move`.
    """

    def __init__(self, *, budget: float, total: int = 0) -> None:
        self.budget, self.total = budget, total
        self._folder = tempfile.TemporaryDirectory(prefix="broken-examples-")
        self.path = Path(self._folder.name) / "bad_examples.csv"
        self._known: set[tuple[str, str]] = set()

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_folder": None}  # who made the folder removes it

    def move(self, path: Path, *, anew: bool) -> None:
        """Keep the list at `path` from now on, with what it holds.

        Args:
            path: a CSV file.
            anew: replace a file that is there; False = add to it.
        """
        rows = self.rows()
        path.parent.mkdir(parents=True, exist_ok=True)
        if anew:
            path.unlink(missing_ok=True)
        self.path, self._folder = path, None
        known = {(row["id"], row["modality"]) for row in self.rows()}
        self._append([row for row in rows if (row["id"], row["modality"]) not in known])

    def report(self, id: str, modality: str, *, file: str, reason: str) -> None:
        """Names a broken cell once, in the log and in the list.

        Raises:
            ValueError: more than the budget is broken.
        """
        id = str(cell(id))
        if (id, modality) in self._known:
            return
        self._known |= {(row["id"], row["modality"]) for row in self.rows()}
        if (id, modality) in self._known:
            return
        self._known.add((id, modality))
        told = (id, modality, cell(file), cell(reason))
        self._append([dict(zip(_COLUMNS, told, strict=True))])
        _log.warning("%s: %s", shown(id), shown(reason, 1000))
        broken = {name for name, _ in self._known}
        if len(broken) > self.budget * self.total:
            raise ValueError(
                f"{len(broken)} of {self.total:,} examples are broken, more than "
                f"data.error_budget={self.budget:g}; the last: {reason} All are listed in "
                f"{self.path}."
            )

    def rows(self) -> list[dict[str, str]]:
        """What was reported so far, by any process: id, modality, file and reason."""
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file, _COLUMNS) if row["reason"] is not None]
        return list({(row["id"], row["modality"]): row for row in rows[1:]}.values())

    def _append(self, rows: list[dict[str, str]]) -> None:
        if not rows:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
        if not self.path.exists():
            writer.writeheader()
        writer.writerows(rows)
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, text.getvalue().encode("utf-8", errors="replace"))
        finally:
            os.close(handle)
