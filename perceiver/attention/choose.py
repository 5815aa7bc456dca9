"""Looking a named choice up on its axis."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any


def choices(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """The public functions and concrete classes that a module defines, by snake-case name."""
    found = {}
    for name, member in vars(module).items():
        if name.startswith("_") or getattr(member, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(member) or (inspect.isclass(member) and not _is_base(member)):
            key = "".join("_" + ch.lower() if ch.isupper() else ch for ch in name).lstrip("_")
            found[key] = member
    return found


def _is_base(cls: type) -> bool:
    return any(getattr(member, "__isabstractmethod__", False) for member in vars(cls).values())


def choose(axis: str, choice: str | Callable[..., Any], module: ModuleType) -> Callable[..., Any]:
    """The member of `module` with that name; anything callable is taken as it is.

    Raises:
        ValueError: for an unknown name, with the nearest known one.
    """
    if not isinstance(choice, str):
        return choice
    known = choices(module)
    if choice in known:
        return known[choice]
    near = difflib.get_close_matches(choice, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"unknown {axis} {choice!r}: {hint}choose one of {', '.join(sorted(known))}")
