"""Bytes out of shards: from a folder, from a URL, or from shards kept near for a while."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from datamodules.core.inside import check_file
from datamodules.layouts.shards.layout import open_root
from perceiver.files import replacing

_OPEN_FILES = 64  # at most, per process

Place = tuple[int, int, int]  # shard, first byte, bytes


class ShardReader:
    """Reads byte ranges of tar files.

    A folder's are read in place. A URL's are asked for range by range, those of a batch at once, or
    are fetched whole into `local` and read there; those used longest ago make room for new ones.

    Args:
        root: a folder, or a URL: see `open_root`.
        names: of the tar files.
        local: folder to keep whole shards of a URL in; None = keep none.
        local_gib: how much they may take there, in GiB; each worker may exceed it by a shard.
        outside: allow links that lead out of the folder.
    """

    def __init__(
        self,
        root: str,
        names: Sequence[str],
        *,
        local: str | None = None,
        local_gib: float = 10.0,
        outside: bool = False,
    ) -> None:
        self.root, self.names, self.outside = root, list(names), outside
        self.local, self.local_bytes = Path(local) if local else None, local_gib * 2**30
        self._clear()

    def _clear(self) -> None:
        self._process = os.getpid()
        self._files: Any = None
        self._handles: OrderedDict[int, int] = OrderedDict()
        self._fetched: dict[Place, bytes] = {}
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        kept = ("root", "names", "local", "local_bytes", "outside")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._clear()

    def __del__(self) -> None:
        if getattr(self, "_process", None) == os.getpid():
            for handle in self._handles.values():
                with suppress(OSError):
                    os.close(handle)

    def _connect(self) -> None:
        """Opens the file system, in each process its own: connections do not survive a fork."""
        if self._process != os.getpid():
            self._clear()
        if self._files is None:
            self._files, self._folder = open_root(self.root)
            self._in_place = isinstance(self._files, LocalFileSystem)

    def fetch(self, places: Sequence[Place]) -> None:
        """Asks for many ranges at once, to be read next; worth it only from afar."""
        self._connect()
        self._fetched.clear()
        if self._in_place or not places:
            return
        if self.local is not None:
            shards = sorted({shard for shard, _, _ in places})
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(self._bring, shards))
            return
        paths = [f"{self._folder}/{self.names[shard]}" for shard, _, _ in places]
        ends = [start + size for _, start, size in places]
        found = self._files.cat_ranges(
            paths, [start for _, start, _ in places], ends, on_error="raise"
        )
        self._fetched = dict(zip(places, found, strict=True))

    def read(self, place: Place) -> bytes:
        """The bytes of a range.

        Raises:
            ValueError: the shard is not there or is shorter; the message names it.
        """
        self._connect()
        shard, start, size = place
        name = self.names[shard]
        try:
            if self._in_place or self.local is not None:
                with self._lock:  # or another thread may close the file to open one more
                    handle = self._handle(shard)
                    # What an index promises is no reason to set memory aside for it.
                    left = os.fstat(handle).st_size - start
                    content = os.pread(handle, size, start) if size <= left else b""
            else:
                content = self._fetched.pop(place, None)
                if content is None:
                    path = f"{self._folder}/{name}"
                    content = self._files.cat_file(path, start=start, end=start + size)
        except FileNotFoundError as error:
            raise ValueError(f"The shard {self.root}/{name} is not there.") from error
        if len(content) != size:
            raise ValueError(
                f"The shard {self.root}/{name} is cut short or does not fit its index: of {size} "
                f"bytes at {start} it has {len(content)}. Fetch or pack it again."
            )
        return content

    def _handle(self, shard: int) -> int:
        if shard in self._handles:
            self._handles.move_to_end(shard)
            return self._handles[shard]
        path = self._bring(shard)
        self._handles[shard] = handle = os.open(path, os.O_RDONLY)
        if len(self._handles) > _OPEN_FILES:
            os.close(self._handles.popitem(last=False)[1])
        return handle

    def _bring(self, shard: int) -> Path:
        """The shard as a file of this machine."""
        name = self.names[shard]
        if self._in_place:
            path = Path(self._folder) / name
            check_file(path, inside=Path(self._folder), outside=self.outside)
            return path
        assert self.local is not None
        path = self.local / name
        with suppress(FileNotFoundError):
            os.utime(path)  # used just now
            return path
        with replacing(path) as file:  # several processes may want it at once
            self._files.get_file(f"{self._folder}/{name}", file.name)
        self._make_room(path)
        return path

    def _make_room(self, kept: Path) -> None:
        """Removes shards used longest ago; a process that has one open reads on."""
        shards = []
        for path in self.local.glob("*.tar"):
            with suppress(FileNotFoundError):
                status = path.stat()
                shards.append((status.st_mtime, status.st_size, path))
        excess = sum(size for _, size, _ in shards) - self.local_bytes
        for _, size, path in sorted(shards):
            if excess <= 0:
                return
            if path != kept:
                path.unlink(missing_ok=True)
                excess -= size
