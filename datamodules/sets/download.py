"""Published data sets: found in a folder, or fetched there if asked, checked and unpacked."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, ClassVar
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from filelock import FileLock

from datamodules.core.rows_datamodule import RowsDataModule

_BLOCK = 2**20
_TIMEOUT = 60  # seconds without a byte


class PublishedDataModule(RowsDataModule):
    """Base of data sets that are published as files to download.

    A subclass says its `name` in the config and its `title` for people, and implements `found`,
    `fetch` and `rows`.

    Args:
        root: where the files are, or go.
        download: fetch them if absent; the only time the network is used.
        **common: options of `RowsDataModule`, which refuses unknown ones.
    """

    name: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, *, root: str, download: bool = False, **common: Any) -> None:
        super().__init__(**common)
        self.root = Path(root)
        self.download = download

    @abstractmethod
    def found(self) -> Path | None:
        """The folder at or below the root that the files lie in; None = they are not there."""

    @abstractmethod
    def fetch(self) -> None:
        """Downloads the files into the root."""

    def prepare_data(self) -> None:
        if not self.download or self.found():
            return
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / ".download.lock"):  # processes of one run wait for one another
            if not self.found():
                print(f"Downloading {self.title} to {self.root} …")
                self.fetch()

    def folder(self) -> Path:
        """Raises FileNotFoundError, naming the command that fetches the files, if absent."""
        folder = self.found()
        if folder is None:
            raise FileNotFoundError(
                f"{self.title} is not in {self.root}; point data.root at it, or get it with: "
                f"python train.py data={self.name} data.root={self.root} data.download=true"
            )
        return folder


def first_folder(root: Path, names: tuple[str, ...], *, holding: str) -> Path | None:
    """The first of the folders below a root in which a file or folder is."""
    return next((root / name for name in names if (root / name / holding).exists()), None)


def download(url: str | Sequence[str], path: Path, *, checksum: str | None) -> Path:
    """Fetches a file, going on where an earlier attempt ended.

    Args:
        url: of the file, or several, of which the next is tried where one fails.
        path: where it goes; one that is there with the right checksum is not fetched again.
        checksum: "md5:…" or "sha256:…" in hex; None = its publisher guarantees none.

    Returns:
        `path`.

    Raises:
        OSError: the file cannot be fetched, or what came has another checksum.
    """
    errors = []
    for one in [url] if isinstance(url, str) else url:
        try:
            return _download(one, path, checksum)
        except OSError as error:
            errors.append(error)
    raise errors[0]


def _download(url: str, path: Path, checksum: str | None) -> Path:
    part = path.with_name(path.name + ".part")
    if path.is_file() and _matches(path, checksum):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    start = part.stat().st_size if part.exists() else 0
    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urlopen(request, timeout=_TIMEOUT) as answer:
            resumes = answer.status == 206
            expected = answer.headers.get("Content-Length")
            with part.open("ab" if resumes else "wb") as file:
                before = file.tell()
                while block := answer.read(_BLOCK):
                    file.write(block)
                held = file.tell() - before
            if expected is not None and held < int(expected):
                raise URLError(f"it broke off after {held:,} of {int(expected):,} bytes")
    except HTTPError as error:
        if error.code != 416:  # there is nothing after `start`: the part is whole
            raise OSError(f"Cannot fetch {url}: {error}. Try again.") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise OSError(
            f"Cannot fetch {url}: {reason}. The same command goes on where this one ended."
        ) from error
    if not _matches(part, checksum):
        part.unlink()
        raise OSError(f"{url} is not the file whose checksum is {checksum}: try again.")
    return part.replace(path)


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a .zip or .tar.* into a folder that nothing in it may leave.

    Raises:
        ValueError: a name in it is absolute or climbs with `..`, or a link leads out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                for name in file.namelist():
                    _refuse_outside(name)
                file.extractall(folder)
        else:
            with tarfile.open(archive) as file:
                for name in file.getnames():
                    _refuse_outside(name)
                file.extractall(folder, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, ValueError) as error:
        raise ValueError(f"The archive {archive} is not unpacked: {error}.") from error


def _refuse_outside(name: str) -> None:
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if path.is_absolute() or path.drive or ".." in path.parts:
            raise ValueError(f"it holds {name!r}, outside the folder")


def _matches(path: Path, checksum: str | None) -> bool:
    if checksum is None:
        return True
    kind, _, expected = checksum.partition(":")
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest() == expected
