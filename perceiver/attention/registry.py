"""Looking a named choice up on its axis, and building it."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any


def choices(base: type, package: ModuleType) -> dict[str, Callable[..., Any]]:
    """The subclasses of `base` that a package exports, by `name` or their own name in snake case.

    An empty `name` says that a class is no choice.
    """
    found: dict[str, Callable[..., Any]] = {}
    for member in vars(package).values():
        if inspect.isclass(member) and issubclass(member, base) and member is not base:
            name = vars(member).get("name", _snake_case(member.__name__))
            if name:
                found[name] = member
    return found


def _snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint at the known word nearest to a misspelt one."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}? " if near else ""


def choose(
    axis: str, choice: str | Callable[..., Any], known: Mapping[str, Callable[..., Any]]
) -> Callable[..., Any]:
    """The member of that name; anything callable is taken as it is.

    Raises:
        ValueError: for an unknown name, with the nearest known one.
    """
    if isinstance(choice, str) and choice in known:
        return known[choice]
    if callable(choice):
        return choice
    hint = nearest(choice, known) if isinstance(choice, str) else ""
    raise ValueError(f"unknown {axis} {choice!r}: {hint}choose one of {', '.join(sorted(known))}")


def options_of(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The arguments that a factory names."""
    return {
        name: parameter
        for name, parameter in inspect.signature(factory).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }


def check_options(
    name: str, factory: Callable[..., Any], options: Mapping[str, Any], sizes: Iterable[str]
) -> None:
    """Raises ValueError for options that a member does not have."""
    own = set(options_of(factory)) - set(sizes)
    for option in sorted(set(options) - own):
        listed = f"it has {', '.join(sorted(own))}" if own else "it has none"
        raise ValueError(f"{name} has no option {option!r}: {nearest(option, own)}{listed}")


def build(
    axis: str,
    choice: str | Callable[..., Any],
    known: Mapping[str, Callable[..., Any]],
    *,
    sizes: Mapping[str, Any],
    options: Mapping[str, Mapping[str, Any]],
) -> Any:
    """A member of an axis, given its options and those of the sizes that its signature names.

    Args:
        axis: name of the axis, for messages.
        choice: name of a member, or a factory.
        known: name → factory.
        sizes: what the attention knows: widths, heads.
        options: member → its options.

    Raises:
        ValueError: for an unknown name or option, or an option that is missing.
    """
    factory = choose(axis, choice, known)
    parameters = options_of(factory)
    given = {name: value for name, value in sizes.items() if name in parameters}
    if isinstance(choice, str):
        given |= options.get(choice) or {}
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and given.get(name) is None
    ]
    if missing:
        raise ValueError(
            f"{axis}={choice} needs {', '.join(missing)}: set options.{choice}.{missing[0]}, or "
            "choose another"
        )
    try:
        return factory(**given)
    except TypeError as error:  # an option of another type
        own = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise ValueError(f"{axis}={choice} cannot be made of {own}: {error}") from error
