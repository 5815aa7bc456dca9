"""Who is measured: this project and the other public Perceivers, each in its own interpreter."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from benchmarks.configurations import Configuration

FOLDER = Path(__file__).parents[1]
PROJECT = FOLDER.parent
PEERS = FOLDER / ".peers"

PRECISIONS = ("fp32", "medium", "bf16-mixed", "bf16-true")
COMPILED = ("compile", "regions")


class NotApplicable(Exception):
    """Raised by a contestant that has no such model."""


class Task(Protocol):
    """What a contestant makes of a configuration: a module, and the arguments of its forward."""

    module: nn.Module
    arguments: dict[str, Any]

    def output(self, result: Any) -> Tensor: ...


@dataclass(frozen=True)
class Contestant:
    """A library, and how it is run.

    Args:
        library: a module of this package.
        options: for this project, option → value: "kernel", or a path such as
            "cross_attention.normaliser".
        precision: "fp32"; "medium" (fp32 tensors, bf16 products); "bf16-mixed" (autocast);
            "bf16-true" (parameters and inputs).
        compiled: "compile" (the whole model); "regions" (what `compile=true` of train.py
            compiles of this project's model); "" (nothing).
    """

    library: str
    options: dict[str, Any] = field(default_factory=dict)
    precision: str = "fp32"
    compiled: str = ""

    @property
    def label(self) -> str:
        """How it is called on the command line and in tables."""
        parts = [self.library, *(f"{key}={value}" for key, value in self.options.items())]
        parts += [self.precision] * (self.precision != "fp32")
        return "+".join([*parts, self.compiled] if self.compiled else parts)

    @classmethod
    def parse(cls, label: str) -> Contestant:
        """The contestant of a label such as "ours+kernel=dense+bf16-mixed+compile".

        Raises:
            ValueError: for an unknown library or word.
        """
        library, *words = label.split("+")
        if library not in LIBRARIES:
            raise ValueError(f"unknown library {library!r}: choose one of {', '.join(LIBRARIES)}")
        options, precision, compiled = {}, "fp32", ""
        for word in words:
            key, equals, value = word.partition("=")
            if equals:
                options[key] = _value(value)
            elif word in PRECISIONS:
                precision = word
            elif word in COMPILED:
                compiled = word
            else:
                raise ValueError(
                    f"{label!r}: {word!r} is neither key=value nor one of "
                    f"{', '.join((*COMPILED, *PRECISIONS))}"
                )
        if library != "ours" and (options or compiled == "regions"):
            raise ValueError(f"{label!r}: only this project takes options and has regions")
        return cls(library, options, precision, compiled)


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "null": None}.get(text, text)


@dataclass(frozen=True)
class Library:
    """Where a library comes from.

    Args:
        title: for tables.
        distribution: its name in the package index.
        requirements: what is installed for it, beside this project's own packages; none: it is
            imported by this project's interpreter.
    """

    title: str
    distribution: str
    requirements: tuple[str, ...] = ()


LIBRARIES = {
    "ours": Library("this project", "perceiver-multimodal"),
    "hf": Library("transformers", "transformers"),
    "lucidrains": Library(
        "lucidrains' perceiver-pytorch",
        "perceiver-pytorch",
        ("perceiver-pytorch==0.11.0", "einops==0.8.1"),
    ),
    "krasserm": Library(
        "krasserm's perceiver-io",
        "perceiver-io",
        ("perceiver-io==0.11.0", "fairscale==0.4.13", "einops==0.8.1"),
    ),
}


def interpreter(library: str) -> Path | None:
    """The Python that imports the library; None if it is not installed."""
    if LIBRARIES[library].requirements:
        python = PEERS / library / "bin" / "python"
        return python if python.exists() else None
    if library == "hf":
        from importlib.util import find_spec

        return Path(sys.executable) if find_spec("transformers") else None
    return Path(sys.executable)


def build(contestant: Contestant, configuration: Configuration) -> Task:
    """The contestant's model of a configuration, with the weights and inputs that all share.

    Raises:
        NotApplicable: if the library has no such model.
    """
    module = import_module(f"benchmarks.contestants.{contestant.library}")
    return module.build(configuration, **contestant.options)


def compiled(module: nn.Module, how: str) -> Callable[..., Any]:
    """The module, compiled as a `Contestant` says.

    Raises:
        NotApplicable: if it names no regions but they are wanted.
    """
    if how == "compile":
        return torch.compile(module)
    if how == "regions":
        if not hasattr(module, "regions"):
            raise NotApplicable(f"{type(module).__name__} names no regions to compile")
        for region in module.regions():
            region.compile()
    return module
