"""Keeping the examples of a source decoded in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from datamodules.broken import BrokenExamples
from datamodules.readers import Cell, Kind
from datamodules.splits import Source, decode


class CachedSource(Source):
    """A source of cells, decoded when it is made; what costs little to decode stays as it is.

    A modality is one tensor, not one an example: worker processes then share the memory.

    Args:
        source: gives the cells.
        kinds: modality → what decodes them.
        broken: where to report what cannot be decoded; None = raise.

    Raises:
        ValueError: a cell cannot be decoded, or too many cannot.
    """

    def __init__(
        self, source: Source, *, kinds: Mapping[str, Kind], broken: BrokenExamples | None = None
    ) -> None:
        super().__init__(targets=source.targets, ids=source.ids)
        self.source = source
        self.kinds = {name: kind for name, kind in kinds.items() if kind.is_costly}
        self.missing = {name: source.absent(name) for name in kinds}
        self.decoded: dict[str, _Fixed | _Ragged] = {}

        def read(index: int) -> dict[str, Tensor | None]:
            cells = source.cells(index)
            return {
                name: decode(cells[name], name=name, kind=kind, id=self.ids[index], broken=broken)
                for name, kind in self.kinds.items()
            }

        stores = {
            name: (_Ragged if field.is_ragged or field.has_own_size else _Fixed)(len(source))
            for name, field in ((name, kind.field()) for name, kind in self.kinds.items())
        }
        # Threads: decoders work outside Python's lock.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for index, inputs in enumerate(pool.map(read, range(len(source)))):
                for name, value in inputs.items():
                    stores[name].put(index, value)
        for name, store in stores.items():
            store.close()
            self.decoded[name] = store
            self.missing[name] = ~store.held

    def cells(self, index: int) -> dict[str, Cell]:
        cells = self.source.cells(index) if len(self.decoded) < len(self.missing) else {}
        return cells | {name: store.get(index) for name, store in self.decoded.items()}

    def absent(self, modality: str) -> np.ndarray:
        return self.missing[modality]

    def lengths(self, modality: str, kind: Kind | None) -> np.ndarray | None:
        store = self.decoded.get(modality)
        if store is None:
            return self.source.lengths(modality, kind)
        return store.lengths() if isinstance(store, _Ragged) else None


def decoded_bytes(sources: Sequence[Source], kinds: Mapping[str, Kind]) -> int:
    """What the costly modalities take decoded, at most."""
    cell = sum(kind.decoded_bytes() for kind in kinds.values() if kind.is_costly)
    return cell * sum(map(len, sources))


class _Fixed:
    """Tensors of one shape, in one."""

    def __init__(self, count: int) -> None:
        self.held = np.zeros(count, dtype=bool)
        self.values: Tensor | None = None

    def put(self, index: int, value: Tensor | None) -> None:
        if value is None:
            return
        if self.values is None:
            self.values = torch.zeros((len(self.held), *value.shape), dtype=value.dtype)
        self.values[index] = value
        self.held[index] = True

    def close(self) -> None:
        pass

    def get(self, index: int) -> Tensor | None:
        return self.values[index] if self.values is not None and self.held[index] else None


class _Ragged:
    """Tensors of several shapes, end to end."""

    def __init__(self, count: int) -> None:
        self.held = np.zeros(count, dtype=bool)
        self.starts = np.zeros(count + 1, dtype=np.int64)
        self.shapes: np.ndarray | None = None  # (count, axes)
        self.parts: list[Tensor] = []
        self.values: Tensor | None = None

    def put(self, index: int, value: Tensor | None) -> None:
        self.held[index] = value is not None
        self.starts[index + 1] = self.starts[index] + (0 if value is None else value.numel())
        if value is not None:
            self.parts.append(value.flatten())
            if self.shapes is None:
                self.shapes = np.zeros((len(self.held), value.ndim), dtype=np.int32)
            self.shapes[index] = value.shape

    def close(self) -> None:
        self.values = torch.cat(self.parts) if self.parts else None
        self.parts = []

    def get(self, index: int) -> Tensor | None:
        if self.values is None or self.shapes is None or not self.held[index]:
            return None
        flat = self.values[self.starts[index] : self.starts[index + 1]]
        return flat.view(*self.shapes[index].tolist())

    def lengths(self) -> np.ndarray:
        """Samples of a sound, pixels of an image."""
        return np.zeros(len(self.held)) if self.shapes is None else self.shapes[:, -2:].prod(axis=1)
