"""Cells → tensors, modality by modality, with what is broken reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path

import numpy as np
from torch import Tensor

from datamodules.core.bad_examples import BadExamples
from datamodules.readers import Cell, Reader
from datamodules.readers.audio import AudioReader
from datamodules.readers.pyav import is_film
from datamodules.readers.video import VideoReader, read_clip

Inputs = dict[str, list[Tensor | None]]  # modality → the tensors of some examples


def decode_all(
    cells: Mapping[str, Sequence[Cell]],
    *,
    readers: Mapping[str, Reader],
    ids: Sequence[str],
    bad_examples: BadExamples | None = None,
    rngs: Sequence[np.random.Generator] | None = None,
) -> Inputs:
    """The tensors of the cells of some examples; see `decode`.

    Where a film is both a video and an audio modality, its sound is that of the span which the
    frames are taken from.

    Args:
        cells: modality → cells.
        readers: modality → what decodes them.
        ids: of the examples.
        bad_examples: where to report what cannot be decoded; None = raise.
        rngs: draw which part of an example's cells training takes; None = evaluation.
    """
    columns: dict[str, list[Cell]] = {name: list(column) for name, column in cells.items()}
    films = [n for n, k in readers.items() if isinstance(k, VideoReader) and k.draws]
    for film, row in product(films, range(len(ids))):
        if not is_film(cell := columns[film][row]):
            continue
        for name, reader in readers.items():
            if isinstance(reader, AudioReader) and columns[name][row] == cell:
                rng = None if rngs is None else rngs[row]
                with suppress(ValueError):  # each is reported below
                    columns[film][row], columns[name][row] = read_clip(
                        cell, readers[film], audio=reader, rng=rng
                    )
                break
    return {
        name: decode(
            column,
            name=name,
            reader=readers.get(name),
            ids=ids,
            bad_examples=bad_examples,
            rngs=rngs,
        )
        for name, column in columns.items()
    }


def decode(
    cells: Sequence[Cell],
    *,
    name: str,
    reader: Reader | None,
    ids: Sequence[str],
    bad_examples: BadExamples | None,
    rngs: Sequence[np.random.Generator] | None = None,
) -> list[Tensor | None]:
    """The tensors of cells; None where one holds nothing, or is broken and was reported.

    Args:
        cells: one modality of some examples; a tensor is taken as it is.
        name: the modality.
        reader: decodes them.
        ids: of the examples.
        bad_examples: where to report what cannot be decoded; None = raise.
        rngs: draw which part of a cell is taken, where its reader does so.

    Raises:
        ValueError: a cell cannot be decoded, or too many cannot.
    """
    if reader is not None and (rngs is None or not reader.draws):
        with suppress(ValueError):  # one by one it is named
            if (together := reader.decode_all(cells)) is not None:
                return together
    found: list[Tensor | None] = []
    for row, cell in enumerate(cells):
        if cell is None or isinstance(cell, Tensor):
            found.append(cell)
            continue
        if reader is None:
            raise ValueError(
                f"data.{name} is not set: the {name} of example {ids[row]} cannot be decoded."
            )
        options = {"rng": None if rngs is None else rngs[row]} if reader.draws else {}
        try:
            found.append(reader.decode(cell, where=f"example {ids[row]}", **options))
        except ValueError as error:
            if bad_examples is None:
                raise
            file = str(cell) if isinstance(cell, Path) else ""
            bad_examples.report(ids[row], name, file=file, reason=str(error))
            found.append(None)
    return found
