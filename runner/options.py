"""Whether the options of a config are what the classes that they are for take."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from typing import Any, get_type_hints

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

_RULES = ConfigDict(arbitrary_types_allowed=True)
_SCALARS = (bool, int, float, str)
# What stands beside the groups of a config, and is nobody's option (`check_speed` has the rest).
_RUN = {
    "seed": int,
    "budget": str,
    "init_from": str | None,
    "freeze": list[str],
    "ckpt_path": str | None,
    "fit": bool,
    "test": bool,
    "baseline": bool,
}


def check_options(config: DictConfig) -> None:
    """Refuse options that their `_target_` has no room for, and any that are of another type.

    Types are those of its annotations. Where another option is referred to, and that is null, it
    may not be known yet, and is left alone.

    Raises:
        ValueError: for the first misfit found.
    """
    for name, kind in _RUN.items():
        if name in config:
            _check_type(kind, name, config[name], taker="a run", name=name)
    for path, node in _targets(config, ""):
        target = get_object(node["_target_"])
        for name, value in node.items():
            is_own = not OmegaConf.is_interpolation(node, name)
            if not str(name).startswith("_") and (is_own or value is not None):
                check_option(target, f"{path}{name}", str(name), _plain(value))


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _targets(node: Any, path: str) -> Iterator[tuple[str, DictConfig]]:
    """Everything that Hydra would build, where it is written down, with its options' prefix."""
    if isinstance(node, DictConfig) and "_target_" in node:
        yield path, node
    for key in node if isinstance(node, DictConfig) else range(len(node)):
        if not OmegaConf.is_interpolation(node, key) and OmegaConf.is_config(node[key]):
            yield from _targets(node[key], f"{path}{key}.")


def check_option(target: Callable[..., Any], path: str, name: str, value: Any) -> None:
    """Refuse an option that a class or function has no room for, or that is of another type.

    Args:
        target: takes it.
        path: of the option in the config.
        name: of the option.
        value: as plain data, not built yet.

    Raises:
        ValueError: naming the option and who takes it.
    """
    where = f"{target.__module__}.{target.__qualname__}"
    known = inspect.signature(target).parameters
    takes_any = any(option.kind is option.VAR_KEYWORD for option in known.values())
    if name not in known and not takes_any:
        names = ", ".join(known)
        raise ValueError(
            f"{path} is no option of {where}, which has {names}: leave it out with '~{path}'"
        )
    annotation = _annotation(target, name)
    if annotation is not inspect.Parameter.empty and not _is_open(value):
        _check_type(annotation, path, value, taker=where, name=name)


def _check_type(annotation: Any, path: str, value: Any, *, taker: str, name: str) -> None:
    try:
        # A list of a config may be meant as a tuple, while text is never meant as a number.
        strict = isinstance(value, _SCALARS)
        _adapter(annotation).validate_python(value, strict=strict)
    except PydanticUserError:  # no type that values can be held against
        return
    except ValidationError as error:
        for part in error.errors()[0]["loc"]:  # where in it; then come alternatives of the type
            if not isinstance(value, dict | list) or part not in _keys(value):
                break
            path, value = f"{path}.{part}", value[part]
        shown = "null" if value is None else value
        raise ValueError(
            f"{path}={shown} does not fit: {taker} takes {name} as "
            f"{inspect.formatannotation(annotation)}"
        ) from error


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config=_RULES)


def _keys(value: dict[Any, Any] | list[Any]) -> Collection[Any]:
    return value.keys() if isinstance(value, dict) else range(len(value))


def _is_open(value: Any, *, is_inside: bool = False) -> bool:
    """Whether something inside of the value is null, or is yet to be built."""
    if isinstance(value, dict):
        return "_target_" in value or any(_is_open(v, is_inside=True) for v in value.values())
    if isinstance(value, list):
        return any(_is_open(v, is_inside=True) for v in value)
    return is_inside and value is None


def _annotation(target: Callable[..., Any], name: str) -> Any:
    """The type of an option, which a base class may have declared; empty if none did."""
    kinds = inspect.getmro(target) if inspect.isclass(target) else ()
    for function in [kind.__init__ for kind in kinds if "__init__" in vars(kind)] or [target]:
        annotations = _annotations(function)
        if name in annotations:
            return annotations[name]
    return inspect.Parameter.empty


@cache  # of functions, not of classes, whose __init__ may be another one later
def _annotations(function: Callable[..., Any]) -> Mapping[str, Any]:
    """The types of a function's own options; empty where none is written or known."""
    options = inspect.signature(function).parameters.values()
    empty = inspect.Parameter.empty
    try:
        hints = get_type_hints(function)
    except NameError:  # of something that is imported for type checkers alone
        hints = {}
    return {o.name: hints.get(o.name, empty) for o in options if o.kind is not o.VAR_KEYWORD}
