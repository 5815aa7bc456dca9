"""Architectures as plain data: what they may hold, and reading them from files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# What a word may look like: the name of an activation, not a path or an address.
_WORD = re.compile(r"[A-Za-z0-9_.-]{0,64}", re.ASCII)


def read_json(file: Path) -> dict[str, Any]:
    """A file that holds one JSON object.

    Raises:
        ValueError: it holds something else.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} holds {type(found).__name__}, expected names and their values")
    return found


def is_plain(value: Any, *, words: bool) -> bool:
    """Whether a value is a number, or lists and mappings of them; or words, where they may be."""
    if isinstance(value, Mapping):
        return all(isinstance(n, str) and is_plain(v, words=words) for n, v in value.items())
    if isinstance(value, list | tuple):
        return all(is_plain(item, words=words) for item in value)
    if isinstance(value, str):
        return words and bool(_WORD.fullmatch(value))
    return value is None or isinstance(value, bool | int | float)


def numbers(options: Any, *, of: str) -> dict[str, Any]:
    """Options of which each must be a number, or a list of them.

    Numbers name no file, address or class, so that they may come from anybody's checkpoint.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(options, Mapping):
        raise ValueError(f"{of} has options {options!r:.100}, expected names and their numbers")
    for name, value in options.items():
        if str(name).startswith("pretrained") or not is_plain(value, words=False):
            raise ValueError(f"{of} has the option {name}={value!r:.100}, which is not a number")
    return dict(options)


def first_line(error: Exception) -> str:
    """What an error of a library says first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
