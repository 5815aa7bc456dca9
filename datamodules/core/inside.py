"""Files of a folder that may be a stranger's: none leads out of it, none is a device or a pipe."""

from __future__ import annotations

import os
import stat
from pathlib import Path

HINT = "set data.root to a folder that holds it, or allow this with data.outside=true"


def check_file(path: Path, *, inside: Path, outside: bool = False) -> None:
    """Refuse what is no plain file of the folder.

    Args:
        path: of the file, which may be a symbolic link.
        inside: the folder.
        outside: allow links that lead out of it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it leads out, or to a device or a pipe, whose reading need not end.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path} is no plain file: replace or remove it.")
    folder = os.path.join(os.path.realpath(inside), "")
    if not outside and not os.path.realpath(path).startswith(folder):
        raise ValueError(f"The file {path} lies outside data.root={inside}: {HINT}.")


def check_tree(folder: Path, *, outside: bool = False) -> None:
    """`check_file` of every file in a folder and those below it.

    Raises:
        ValueError: as `check_file`.
    """
    for place, folders, names in os.walk(folder):
        for name in names:
            check_file(Path(place) / name, inside=folder, outside=outside)
        for name in folders:  # the walk does not follow links to them
            path = Path(place) / name
            if path.is_symlink() and not outside:
                raise ValueError(f"The folder {path} is a link: {HINT}.")
