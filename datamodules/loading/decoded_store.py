"""Decoded examples in a file of Arrow's IPC format, mapped into memory."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor


class DecodedStoreWriter:
    """Writes tensors of one type and number of axes, in order, for `DecodedStore`.

    A row of the file is a tensor: its `values`, null where there is none, and its `shape`.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: pa.RecordBatchFileWriter | None = None
        self._lacking = 0  # rows before the first tensor, which says what the columns are

    def put(self, tensors: Sequence[Tensor | None]) -> None:
        """Adds the next ones."""
        first = next((tensor for tensor in tensors if tensor is not None), None)
        if self._file is None and first is None:
            self._lacking += len(tensors)
            return
        if self._file is None:
            self._open(first)
        self._write(tensors)

    def close(self) -> None:
        """No more will come."""
        if self._file is None:
            self._open(torch.empty(0))
        self._file.close()

    def _open(self, like: Tensor) -> None:
        self._empty = like.new_empty(0)
        values = pa.large_list(pa.from_numpy_dtype(self._empty.numpy().dtype))
        shape = pa.list_(pa.int32(), like.ndim)
        self._schema = pa.schema({"values": values, "shape": shape})
        self._file = pa.ipc.new_file(str(self.path), self._schema)
        if self._lacking:
            self._write([None] * self._lacking)

    def _write(self, tensors: Sequence[Tensor | None]) -> None:
        axes = self._schema.field("shape").type.list_size
        sizes = [0 if tensor is None else tensor.numel() for tensor in tensors]
        shapes = [(0,) * axes if tensor is None else tensor.shape for tensor in tensors]
        values = torch.cat([self._empty, *(t.flatten() for t in tensors if t is not None)])
        columns = [
            pa.LargeListArray.from_arrays(
                np.cumsum([0, *sizes]),
                pa.array(values.numpy()),
                mask=pa.array([tensor is None for tensor in tensors]),
            ),
            pa.FixedSizeListArray.from_arrays(np.array(shapes, np.int32).reshape(-1), axes),
        ]
        self._file.write_batch(pa.record_batch(columns, schema=self._schema))


class DecodedStore:
    """What a `DecodedStoreWriter` closed; values are read from the disk as they are asked for.

    Args:
        path: of the file.

    Attributes:
        held: (n,) bool, True where there is a tensor.
        sizes: (n,) elements of each, 0 where there is none.

    Raises:
        ValueError: the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._open()
        except (OSError, ValueError, LookupError, TypeError, pa.ArrowException) as error:
            raise ValueError(
                f"The decoded examples in {path.parent} are damaged "
                f"({str(error) or type(error).__name__}): delete that folder, and they are decoded "
                "again."
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}  # a worker that is not forked maps the file anew

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._open()

    def _open(self) -> None:
        with self.path.open("rb") as file:
            # Private: what is written to a tensor stays in this process.
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        with pa.ipc.open_file(pa.py_buffer(content)) as file:
            batches = [file.get_batch(number) for number in range(file.num_record_batches)]
            values, shape = file.schema.field("values").type, file.schema.field("shape").type
        dtype = torch.from_numpy(np.empty(0, values.value_type.to_pandas_dtype())).dtype
        # The whole file as numbers of the type of its values, which Arrow aligns.
        whole = len(content) // dtype.itemsize
        self._values = torch.frombuffer(content, dtype=dtype, count=whole)
        starts, sizes, held, shapes = [], [], [], [np.empty((0, shape.list_size), np.int32)]
        for batch in batches:
            batch.validate(full=True)
            lists = batch["values"]
            offsets = lists.offsets.to_numpy()
            first = lists.values.buffers()[1].address - self._values.data_ptr()
            starts.append(first // dtype.itemsize + offsets[:-1])
            sizes.append(np.diff(offsets))
            held.append(lists.is_valid().to_numpy(zero_copy_only=False))
            shapes.append(batch["shape"].values.to_numpy().reshape(len(lists), -1))
        self._starts = np.concatenate([np.empty(0, np.int64), *starts])
        self.sizes = np.concatenate([np.empty(0, np.int64), *sizes])
        self.held = np.concatenate([np.empty(0, bool), *held])
        self._shapes = np.concatenate(shapes)

    def get(self, indices: Sequence[int]) -> list[Tensor | None]:
        """The tensors, which share the memory of the file; None where there is none."""
        return [self._get(index) if self.held[index] else None for index in indices]

    def _get(self, index: int) -> Tensor:
        start = self._starts[index]
        values = self._values[start : start + self.sizes[index]]
        return values if self._shapes.shape[1] == 1 else values.view(self._shapes[index].tolist())
