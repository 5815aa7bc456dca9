"""Objects from the plain data of a checkpoint, which may be a stranger's: known classes alone."""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Collection, Iterator
from typing import Any

import pytorch_lightning as pl
from hydra.utils import get_object
from torch import nn
from torch.optim import Optimizer

from perceiver.adapters import PretrainedAdapter
from perceiver.tasks import Task
from perceiver.tasks import schedules as schedule_functions
from runner.options import check_option

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
_SCALARS = (str, int, float, bool, type(None))
_DEPTH = 50  # of dicts and lists in one another
_MOST = 1_000_000  # values: what holds itself many times over would have no end
# What leads to a file or a connection: a URL, an absolute path, one that climbs.
_LEADS_OUT = re.compile(r"://|::|^[~/\\]|^[A-Za-z]:[/\\]|(^|[/\\])\.\.([/\\]|$)")
# The ways to them; on another, modules would be imported that are nobody's part.
_WAYS = ("perceiver", "datamodules", "torch.nn", "torch.optim", "timm.optim")
_WAYS += ("torchaudio.transforms", "torchvision.transforms")
# Kind of object → the modules whose classes of that kind run no code, open and write nothing. What
# counts is where a class is defined: a module's imports are its attributes too.
_HOMES: dict[type, tuple[str, ...]] = {
    Task: ("perceiver.tasks",),
    pl.LightningDataModule: ("datamodules",),
    Optimizer: ("torch.optim", "timm.optim"),
    nn.Module: (
        "perceiver",
        "datamodules.transforms",
        "torch.nn.modules",
        "torchaudio.transforms",
        "torchvision.transforms",
    ),
}


def check_plain(config: Any, *, names: Collection[str] = (), places: Collection[str] = ()) -> None:
    """Refuse what is not the plain data of a config, or leads out of it.

    Args:
        config: of a checkpoint.
        names: keys whose text was found in data, and may be any.
        places: keys whose text names places, which will not be used.

    Raises:
        ValueError: something else than dicts with names for keys, lists and scalars; text that
            OmegaConf would evaluate, or that names a URL or a path.
    """
    for key, node in _leaves(config, "", _DEPTH):
        is_found = key in names
        if type(node) not in _SCALARS or (not is_found and "${" in str(node)):
            raise ValueError(
                f"the checkpoint's config holds {node!r:.200}, which is not plain data"
            )
        if type(node) is str and _LEADS_OUT.search(node) and key not in {*names, *places}:
            raise ValueError(
                f"its config names the place {node!r:.200}, which a checkpoint must not"
            )


def check_size(config: Any) -> None:
    """Refuse what holds parts of itself so often that to go through it would have no end.

    Raises:
        ValueError: it does, or is nested too deep.
    """
    for number, (_, node) in enumerate(_leaves(config, "", _DEPTH)):
        is_deeper = type(node) is list or (type(node) is dict and all(type(n) is str for n in node))
        if number == _MOST or is_deeper:
            raise ValueError(
                f"the checkpoint's config is not plain data: it holds more than {_MOST:,} values, "
                f"or is nested more than {_DEPTH} deep"
            )


def _leaves(node: Any, key: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Everything that is no plain dict or list, with the outermost option that it is of.

    A dict or list itself counts as None.
    """
    if type(node) in (dict, list):
        yield key, None
    if type(node) is dict and depth and all(type(name) is str for name in node):
        for name, value in node.items():
            yield from _leaves(value, key or name, depth - 1)
    elif type(node) is list and depth:
        for value in node:
            yield from _leaves(value, key, depth - 1)
    else:
        yield key, node


def build(node: Any, *, kind: type = nn.Module, where: str) -> Any:
    """What a config's node describes, as Hydra would build it with `_convert_: all`.

    Args:
        node: plain data, where a dict with `_target_` stands for an object; `_partial_` for a
            function that makes one.
        kind: of the object; parts of it are modules, optimisers and schedules.
        where: of the node in the config.

    Raises:
        ValueError: it names what it must not, or options that its class does not take.
    """
    if type(node) is list:
        return [build(item, where=f"{where}.{n}") for n, item in enumerate(node)]
    if type(node) is not dict:
        return node
    marks = {name: node[name] for name in node if name.startswith("_")}
    options = {name: node[name] for name in node if name not in marks}
    if not marks:
        return {name: build(item, where=f"{where}.{name}") for name, item in options.items()}
    known = {"_target_": str, "_partial_": bool, "_convert_": str}
    for name, value in marks.items():
        if type(value) is not known.get(name):
            raise ValueError(f"{where}.{name}={value!r:.200} is not read from a checkpoint")
    found = _find(str(marks.get("_target_")), kind)
    is_encoder = inspect.isclass(found) and issubclass(found, PretrainedAdapter)
    if is_encoder and options.get("weights") is not None:  # they would be opened, or fetched
        raise ValueError(f"{where}.weights={options['weights']!r:.200} is not read at its word")
    for name, value in options.items():
        check_option(found, f"{where}.{name}", name, value)
    built = {name: build(item, where=f"{where}.{name}") for name, item in options.items()}
    if marks.get("_partial_"):
        return functools.partial(found, **built)
    try:
        return found(**built)
    except (TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise ValueError(f"{where} cannot be built: {error}") from error


def _find(target: str, kind: type) -> Any:
    """The class, or schedule, of that name.

    Raises:
        ValueError: it is none of those that a checkpoint may name.
    """
    kinds = (kind,) if kind is not nn.Module else (nn.Module, Optimizer)
    refusal = ValueError(f"it asks for {target!r:.200}, which a checkpoint must not name")
    if not _NAME.fullmatch(target) or not _lies_in(target, _WAYS):
        raise refusal
    if target.startswith(f"{schedule_functions.__name__}.") and kind is nn.Module:
        schedule = vars(schedule_functions).get(target.rpartition(".")[2])
        if inspect.isfunction(schedule) and schedule.__module__ == schedule_functions.__name__:
            return schedule
    try:
        found = get_object(target)
    except (ImportError, ValueError) as error:
        raise refusal from error
    home = str(getattr(found, "__module__", None))
    is_class = inspect.isclass(found) and hasattr(sys.modules.get(home), found.__qualname__)
    for one in kinds:
        if is_class and issubclass(found, one) and _lies_in(home, _HOMES[one]):
            return found
    raise refusal


def _lies_in(module: str, homes: tuple[str, ...]) -> bool:
    return any(f"{module}.".startswith(f"{home}.") for home in homes)
