"""Files that are there whole or not at all, whenever the process that writes them ends."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_SUFFIX = ".writing"
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """A file to write in place of the one at `path`, which changes at the end and at once.

    The new file lies beside the old one until it is on the disk, then takes its name. It is removed
    if anything is raised. What a killed process left in the folder is removed by the next that
    writes there.

    Args:
        path: of a local file; its folder is made.

    Yields:
        A new file, open for bytes; `name` is its path.

    Raises:
        OSError: it cannot be written. Where the disk is full, the message says so.
    """
    path = Path(path)
    with naming_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent)
        file = _new_beside(path)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                if fcntl is None:
                    file.close()  # Windows moves no open file; elsewhere it is locked until moved
                os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Say which disk is full, where the system says that one is.

    Args:
        path: a file, or a folder of files, that takes its place when it is whole.

    Raises:
        OSError: a sentence in place of a number.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OSError(
            f"The disk of {path.parent} is full: {path.name} was not written, and what was there "
            "before is as it was. Make room, or choose another folder."
        ) from error


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system lets one."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sync_tree(folder: Path) -> None:
    """Wait until all files below a folder are on the disk.

    Raises:
        OSError: one cannot be written.
    """
    for place, _, names in os.walk(folder):
        for name in names:
            with (Path(place) / name).open("rb+") as file:
                os.fsync(file.fileno())
        sync_folder(Path(place))


def _new_beside(path: Path) -> IO[bytes]:
    """A file of another name in the same folder, locked for as long as it is open."""
    while True:
        part = path.with_name(f".{path.name[:99]}.{token_hex(4)}{_SUFFIX}")
        file = part.open("xb")
        _lock(file, wait=True)
        if part.exists():
            return file
        file.close()  # another process took it for a leftover before it was locked


def _remove_leftovers(folder: Path) -> None:
    """Remove what nobody writes any more; where files cannot be locked, nothing."""
    for path in folder.glob(f".*{_SUFFIX}"):
        with suppress(OSError), path.open("rb+") as file:
            if _lock(file, wait=False):
                path.unlink()


def _lock(file: IO[bytes], *, wait: bool) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True
