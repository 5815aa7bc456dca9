"""Any data module → shards: tar files of its cells as they lie on the disk, and the index."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem
from torch import Tensor

from datamodules.core.datamodule import MultimodalDataModule, plain
from datamodules.core.dataset import Split
from datamodules.core.decoding import decode
from datamodules.layouts.shards.data import TENSOR
from datamodules.layouts.shards.layout import DESCRIPTION, Description, Index, open_root, write_file
from datamodules.loading.seeding import generator
from datamodules.readers import Cell, Reader
from perceiver.files import sync_tree

_AT_ONCE = 256  # examples that are read before they are written
# The beginnings of files that come without a name.
_MAGIC = {
    b"\xff\xd8\xff": "jpg",
    b"\x89PNG": "png",
    b"GIF8": "gif",
    b"fLaC": "flac",
    b"OggS": "ogg",
    b"ID3": "mp3",
}

Stored = tuple[bytes, str, int]  # content, suffix, length


def pack(
    datamodule: MultimodalDataModule,
    out: str | Path,
    *,
    shard_bytes: int = 2**26,
    decoded: bool = False,
    progress: Callable[[str, int, int], None] = lambda split, done, total: None,
) -> Description:
    """Writes every split of a data module; `dataset.json` comes last, when all is there.

    Args:
        datamodule: any; what it draws anew every epoch is drawn once.
        out: a folder, or a URL: see `open_root`.
        shard_bytes: a tar file is closed once it is larger.
        decoded: store tensors rather than encoded files: larger, and quicker to read.
        progress: called with a split, how many of its examples are written, and of how many.

    Raises:
        FileExistsError: `out` holds shards already.
        ValueError: an example cannot be read.
    """
    out = str(out)
    files, folder = open_root(out, option="out")
    if files.exists(f"{folder}/{DESCRIPTION}"):
        raise FileExistsError(f"{out} holds shards already: remove them or choose another out=…")
    datamodule.setup()
    files.makedirs(folder, exist_ok=True)
    shards: dict[str, list[str]] = {}
    for name, split in datamodule.splits.items():
        writer = SplitWriter(out, name, split, shard_bytes=shard_bytes, decoded=decoded)
        for done in writer.write():
            progress(name, done, len(split))
        shards[name] = writer.names
    told = Description(
        targets=datamodule.targets,
        classes=list(datamodule.class_names),
        modalities=list(datamodule.modalities),
        kinds={name: plain(asdict(reader)) for name, reader in datamodule.readers.items()},
        shards=shards,
    )
    if isinstance(files, LocalFileSystem):
        sync_tree(Path(folder))
    write_file(out, DESCRIPTION, told.to_json())
    return told


class SplitWriter:
    """One split → its tar files and its index.

    Args:
        out: the folder or URL.
        name: of the split.
        split: the examples.
        shard_bytes: a tar file is closed once it is larger.
        decoded: whether to store tensors.
    """

    def __init__(
        self, out: str, name: str, split: Split, *, shard_bytes: int, decoded: bool
    ) -> None:
        self.out, self.name, self.split = out, name, split
        self.shard_bytes, self.decoded = shard_bytes, decoded
        self.names: list[str] = []

    def write(self) -> Iterator[int]:
        """Writes, and yields how many examples are written."""
        files, folder = open_root(self.out)
        modalities, count = self.split.modalities, len(self.split)
        numbers = {
            part: {name: np.full(count, empty, np.int64) for name in modalities}
            for part, empty in (("start", -1), ("size", 0), ("length", 0))
        }
        suffixes: dict[str, list[str | None]] = {name: [None] * count for name in modalities}
        shard = np.zeros(count, np.int64)
        written = self.shard_bytes
        with ExitStack() as pool_stack, ExitStack() as open_files:
            pool = pool_stack.enter_context(ThreadPoolExecutor())
            for first in range(0, count, _AT_ONCE):
                rows = range(first, min(first + _AT_ONCE, count))
                for row, cells in zip(rows, pool.map(self._stored, rows), strict=True):
                    if written >= self.shard_bytes:
                        open_files.close()
                        self.names.append(f"{self.name}-{len(self.names):06}.tar")
                        raw = open_files.enter_context(
                            files.open(f"{folder}/{self.names[-1]}", "wb")
                        )
                        tar = open_files.enter_context(
                            tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT)
                        )
                    shard[row] = len(self.names) - 1
                    for name, (content, suffix, length) in cells.items():
                        start = _add(tar, f"{row:09}.{name}.{suffix}", content)
                        numbers["start"][name][row] = start
                        numbers["size"][name][row] = len(content)
                        numbers["length"][name][row] = length
                        suffixes[name][row] = suffix
                    _add(tar, f"{row:09}.json", self._label(row))
                    written = tar.offset
                yield rows.stop
        source = self.split.source
        index = Index(
            shard=shard,
            ids=pa.array([str(source.ids[row]) for row in range(count)], pa.string()),
            targets=source.targets,
            suffix={name: pa.array(found, pa.string()) for name, found in suffixes.items()},
            **numbers,
        )
        write_file(self.out, f"{self.name}.parquet", index.to_parquet())

    def _label(self, row: int) -> bytes:
        source = self.split.source
        told = {"id": str(source.ids[row]), "target": source.targets[row].tolist()}
        return json.dumps(told, ensure_ascii=False).encode("utf-8")

    def _stored(self, row: int) -> dict[str, Stored]:
        source = self.split.source
        if source.is_drawn:
            cells = source.read(row, generator(self.split.seed, 0, row))
        else:
            cells = {name: column.cells([row])[0] for name, column in source.columns.items()}
        found = {}
        for name in self.split.modalities:
            cell, reader = cells.get(name), self.split.readers.get(name)
            if self.decoded:
                ids, bad_examples = [str(source.ids[row])], self.split.bad_examples
                (cell,) = decode(
                    [cell], name=name, reader=reader, ids=ids, bad_examples=bad_examples
                )
            if cell is not None:
                found[name] = _store(cell, reader)
        return found


def _store(cell: Cell, reader: Reader | None) -> Stored:
    """The content of a cell, how it is stored, and how long its tensor is (0 = as any other)."""
    if isinstance(cell, Tensor):
        length = 0
        if reader is not None and reader.field().is_ragged:
            length = len(cell)
        elif reader is not None and reader.field().has_own_size:
            length = cell.shape[-2] * cell.shape[-1]
        return _npy(cell.numpy()), TENSOR, length
    if isinstance(cell, np.ndarray):
        return _npy(cell), "npy", 0
    length = (reader.length_of(cell) or 0) if reader is not None else 0
    if isinstance(cell, Path):
        suffix = cell.suffix[1:].lower()
        return cell.read_bytes(), suffix if re.fullmatch("[a-z0-9]{1,8}", suffix) else "bin", length
    if isinstance(cell, str):
        return cell.encode("utf-8"), "txt", length
    return cell, _suffix(cell), length


def _suffix(content: bytes) -> str:
    if content[:4] == b"RIFF":
        return {b"WAVE": "wav", b"WEBP": "webp"}.get(content[8:12], "bin")
    return next((name for start, name in _MAGIC.items() if content.startswith(start)), "bin")


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(
        buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False
    )
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Adds a file and returns where its content begins."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    start = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(member, io.BytesIO(content))
    return start


def draws(datamodule: MultimodalDataModule) -> bool:
    """Whether the data module draws its examples, of which shards keep one draw."""
    return any(s.source.is_drawn for s in datamodule.splits.values())
