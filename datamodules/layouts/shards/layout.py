"""What lies in a folder of shards: the names, the description, the index of a split."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from fsspec.implementations.local import LocalFileSystem
from torch import Tensor

from datamodules.core.inside import check_file
from datamodules.layouts.table import refuse_inflated
from datamodules.readers.json_text import load_json
from perceiver.files import replacing
from perceiver.types import TargetKind

DESCRIPTION = "dataset.json"
VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*\.(tar|parquet)")
_MODALITY = re.compile(r"[a-z0-9]+(_[A-Za-z0-9]+)*")
# File systems that give bytes and do nothing else. fsspec has others that unpack, keep copies, run
# templates, or lead on to a URL of their own.
PROTOCOLS = ("file", "memory", "http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")
PROTOCOLS += ("hf", "sftp", "ftp")
_SCALARS = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class Description:
    """What `dataset.json` says: plain data alone, none of which names code.

    Args:
        targets: the value of a `TargetKind`.
        classes: their names.
        modalities: of the examples.
        kinds: kind of modality → its options.
        shards: split → names of its tar files.
        version: of this layout.
    """

    targets: str
    classes: list[str]
    modalities: list[str]
    kinds: dict[str, dict[str, Any]]
    shards: dict[str, list[str]] = field(default_factory=dict)
    version: int = VERSION

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False).encode("utf-8")

    @classmethod
    def from_json(cls, raw: bytes, *, where: str) -> Description:
        """Raises ValueError for anything that is not such a description."""
        try:
            values = load_json(raw)
            found = cls(**values)
            names = [name for split in found.shards.values() for name in split]
            fine = (
                found.version == VERSION
                and found.targets in TargetKind.options().values()
                and all(isinstance(name, str) for name in (*found.classes, *names))
                and all(_MODALITY.fullmatch(name) for name in found.modalities)
                and all(map(_are_options, found.kinds.values()))
            )
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            raise ValueError(f"{where} describes no shards: {error}.") from error
        if not fine:
            raise ValueError(f"{where} describes no shards that this version ({VERSION}) reads.")
        for name in names:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{where} names {name!r}, which is no shard of this folder.")
        return found


@dataclass(frozen=True)
class Index:
    """Where the examples of a split lie.

    Args:
        shard: (n,) which of the split's tar files.
        ids: n names.
        targets: (n,) class indices, (n, k) 0/1 labels or real values.
        start: modality → (n,) first byte of the cell in its file, -1 = absent.
        size: modality → (n,) bytes.
        suffix: modality → n suffixes without the dot: how the cell is stored.
        length: modality → (n,) how long about its tensor is, 0 = not known.
    """

    shard: np.ndarray
    ids: pa.Array
    targets: Tensor
    start: Mapping[str, np.ndarray]
    size: Mapping[str, np.ndarray]
    suffix: Mapping[str, pa.Array]
    length: Mapping[str, np.ndarray]

    def to_parquet(self) -> bytes:
        targets = self.targets.numpy()
        columns: dict[str, Any] = {"shard": self.shard, "id": self.ids}
        columns["target"] = targets if targets.ndim == 1 else pa.array(list(targets))
        for name in self.start:
            for part in ("start", "size", "suffix", "length"):
                values = getattr(self, part)[name]
                if part == "suffix":
                    values = pa.array(values).dictionary_encode()
                columns[f"{name}.{part}"] = values
        buffer = BytesIO()
        pq.write_table(pa.table(columns), buffer, compression="zstd")
        return buffer.getvalue()

    @classmethod
    def from_parquet(cls, raw: bytes, modalities: list[str], *, where: str) -> Index:
        """Raises ValueError for anything that is not such an index."""
        try:
            refuse_inflated(pa.py_buffer(raw), where=where)
            table = pq.read_table(BytesIO(raw))
            target = table["target"]
            nested = pa.types.is_list(target.type)
            targets = np.stack(target.to_numpy()) if nested else target.to_numpy()

            def integers(part: str) -> dict[str, np.ndarray]:
                columns = {name: table[f"{name}.{part}"] for name in modalities}
                return {n: c.to_numpy().astype(np.int64) for n, c in columns.items()}

            return cls(
                shard=table["shard"].to_numpy().astype(np.int64),
                ids=table["id"].combine_chunks().cast(pa.string()),
                targets=torch.from_numpy(np.array(targets)),
                start=integers("start"),
                size=integers("size"),
                suffix={
                    n: table[f"{n}.suffix"].combine_chunks().cast(pa.string()) for n in modalities
                },
                length=integers("length"),
            )
        except (pa.ArrowException, LookupError, ValueError, TypeError, OSError) as error:
            raise ValueError(f"{where} is no index of shards: {error}.") from error


def _are_options(options: Any) -> bool:
    """Whether these are names with numbers, words or lists of them: nothing that could be built."""
    return isinstance(options, dict) and all(_is_plain(value, 3) for value in options.values())


def _is_plain(value: Any, depth: int) -> bool:
    """Whether this is a scalar, or lists of them in one another, at most so many."""
    if isinstance(value, list):
        return depth > 0 and all(_is_plain(one, depth - 1) for one in value)
    return isinstance(value, _SCALARS)


def open_root(root: str, *, option: str = "data.root") -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system that a folder or URL of shards is on, and the folder's path there.

    Args:
        root: the folder or URL.
        option: what the user named it with.

    Raises:
        ValueError: the URL is of another protocol than `PROTOCOLS`, or nothing can read it.
    """
    protocol, separator, _ = root.partition("://")
    if "::" in root or (separator and protocol not in PROTOCOLS):
        raise ValueError(
            f"{option}={root} cannot be read: shards lie in a folder, or at a URL of "
            f"{', '.join(PROTOCOLS)}."
        )
    if not separator:
        root = os.path.abspath(os.path.expanduser(root))
    try:
        files, folder = fsspec.core.url_to_fs(root)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{option}={root} cannot be read: {error}.") from error
    return files, folder.rstrip("/")


def read_file(root: str, name: str, *, outside: bool = False) -> bytes:
    """A small file of the folder.

    Args:
        root: the folder or URL.
        name: of the file.
        outside: allow a link that leads out of the folder.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: nothing can read such a URL, or the file leads out.
    """
    files, folder = open_root(root)
    try:
        if isinstance(files, LocalFileSystem):
            check_file(Path(folder) / name, inside=Path(folder), outside=outside)
        return files.cat_file(f"{folder}/{name}")
    except (ImportError, ValueError) as error:
        raise ValueError(f"data.root={root} cannot be read: {str(error).rstrip('.')}.") from error
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"There is no {name} in {root}: point data.root at a folder or URL of shards, or make "
            "some with python pack.py data=… out=DIR_OR_URL"
        ) from error


def write_file(root: str, name: str, content: bytes) -> None:
    """A small file of the folder, which is made."""
    files, folder = open_root(root, option="out")
    if isinstance(files, LocalFileSystem):
        with replacing(Path(folder) / name) as file:
            file.write(content)
        return
    files.makedirs(folder, exist_ok=True)
    files.pipe_file(f"{folder}/{name}", content)
