"""Segment lists as AudioSet's: clips of films or recordings, each with several labels."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datamodules.core.columns import Files
from datamodules.core.dataset import SPLITS
from datamodules.core.inside import check_file
from datamodules.core.rows import Rows
from datamodules.core.rows_datamodule import RowsDataModule
from datamodules.layouts.folder import walk
from datamodules.readers.audio import AudioReader
from datamodules.readers.text import decode_utf8
from perceiver.types import TargetKind

_NAMES = "class_labels_indices.csv"  # index, label, name


class AudioSetDataModule(RowsDataModule):
    """Tagging of clips (Gemmeke et al. 2017): any number of labels each, measured by mAP.

    A list has a line `id, start, end, "label,label"` a clip, in seconds; lines that begin with #
    are comments. The sound of a clip is a file of its own, named by its id, by Y and its id, or by
    its id and start in either of these ways: `id_30.wav`, `id_30.000.wav`, `id_30000.wav` (ms),
    `id_30.000_40.000.wav`. Clips that are not there are left out and counted, as films vanish.

    Args:
        root: folder of the lists and the clips.
        segments: split → list, relative to the root; without "val" it is taken from train.
        clips: folder of the clips, relative to the root; they may lie in folders below it.
        val_share: part of the training clips for validation where there is no list for it.
        outside: allow symbolic links that lead out of the root.
        **common: options of `RowsDataModule`, which refuses unknown ones.
    """

    available_modalities = ("audio",)
    targets = TargetKind.LABELS

    def __init__(
        self,
        *,
        root: str,
        segments: Mapping[str, str | None],
        clips: str = "audio",
        val_share: float = 0.1,
        outside: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.root, self.clips, self.val_share = Path(root), clips, val_share
        self.outside = outside
        self.segments = {split: name for split, name in segments.items() if name}
        if not {"train", "test"} <= set(self.segments) <= set(SPLITS):
            raise ValueError(
                f"data.segments names {sorted(self.segments)}, expected train, test and perhaps "
                "val, each a list."
            )

    def rows(self) -> Rows:
        """Raises FileNotFoundError without a list or any clip, ValueError naming a bad line."""
        folder = self.root / self.clips
        files = {Path(name).stem: name for name in walk(folder, AudioReader.suffixes)}
        rows, lost = [], 0
        for split, name in self.segments.items():
            outside = self.outside or Path(name).is_absolute()  # the user names the list
            if (self.root / name).exists():
                check_file(self.root / name, inside=self.root, outside=outside)
            for clip, start, end, labels in read_segments(self.root / name):
                file = next((files[n] for n in _names(clip, start, end) if n in files), None)
                lost += file is None
                if file is not None:
                    rows.append((file, labels, split))
        if not rows:
            raise FileNotFoundError(
                f"None of the {lost:,} clips that {', '.join(self.segments.values())} list are in "
                f"{folder}: point data.root and data.clips at them."
            )
        if lost:
            self.notes.append(
                f"warning: {lost:,} of {lost + len(rows):,} clips are not in {folder}, left out"
            )
        names, labels, splits = zip(*rows, strict=True)
        shown = self._label_names()
        return Rows(
            {"audio": Files(names, root=folder, inside=self.root, outside=self.outside)},
            labels=[[shown.get(label, label) for label in several] for several in labels],
            ids=names,
            splits=splits,
            held_out=[split for split in ("val",) if split not in self.segments],
            classes=list(shown.values()) or None,
        )

    def _label_names(self) -> dict[str, str]:
        """Label → its name, in the order of their indices, where the root has a list of them."""
        path = self.root / _NAMES
        if not path.exists():
            return {}
        check_file(path, inside=self.root, outside=self.outside)
        with path.open(encoding="utf-8-sig", newline="") as file:
            return {label: name for _, label, name in list(csv.reader(file))[1:]}


def read_segments(path: Path) -> list[tuple[str, float, float, list[str]]]:
    """The clips of a list: id, start and end in seconds, labels.

    Raises:
        FileNotFoundError: there is no such list.
        ValueError: a line is not of this form; the message names it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no list {path}: point data.root and data.segments at it")
    lines = decode_utf8(path.read_bytes(), where=str(path)).removeprefix("\ufeff").splitlines()
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = next(csv.reader([line], skipinitialspace=True))
        try:
            clip, start, end, labels = cells
            found.append((clip, float(start), float(end), labels.split(",")))
        except ValueError as error:
            raise ValueError(
                f'{path}, line {number} is not id, start, end, "label,label": repair it.'
            ) from error
    return found


def _names(clip: str, start: float, end: float) -> list[str]:
    """What the file of a clip may be called, without its suffix."""
    spans = ("", f"_{start:g}", f"_{start:.3f}", f"_{start * 1000:.0f}", f"_{start:.3f}_{end:.3f}")
    return [prefix + clip + span for span in spans[::-1] for prefix in ("", "Y")]
