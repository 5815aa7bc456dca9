"""Imports point one way: between the rooms, and nowhere in a circle."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Room → the rooms that its modules may import.
BASE = {"shapes", "files", "names", "types"}  # of the library, for all of it
MAY_IMPORT = {
    "perceiver.shapes": set(),
    "perceiver.files": set(),
    "perceiver.names": set(),
    "perceiver.types": {"shapes"},
    "perceiver.ops": BASE,
    "perceiver.positions": {"ops"} | BASE,
    "perceiver.attention": {"ops"} | BASE,
    "perceiver.adapters": {"positions", "ops"} | BASE,
    "perceiver.models": {"adapters", "attention", "positions", "ops"} | BASE,
    "perceiver.tasks": {"models", "adapters", "attention", "ops"} | BASE,
    "perceiver.callbacks": {"tasks", "models"} | BASE,
    "datamodules.readers": set(),
    "datamodules.transforms": {"readers"},
    "datamodules.loading": {"readers"},
    "datamodules.core": {"loading", "transforms", "readers"},
    "datamodules.layouts": {"core", "loading", "readers"},
    "datamodules.sets": {"layouts", "core", "loading", "readers"},
}
# House → the other houses that all of it may import.
OTHERS = {
    "perceiver": set(),
    "datamodules": {"perceiver.types", "perceiver.files", "perceiver.names"},
    "runner": {"perceiver", "datamodules"},
    "scripts": {"perceiver", "datamodules", "runner"},
}


def imports():
    """Module → the modules of this project that it imports anywhere, for type checkers too."""
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for house in ("perceiver", "datamodules", "runner")
        for path in (ROOT / house).rglob("*.py")
    }
    files |= {path.stem: path for path in ROOT.glob("*.py")}
    found = {}
    for module, path in files.items():
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path} imports by dots"
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    names.add(name if name in files else node.module)
        found[module] = names & set(files)
    return found


def parents(module):
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def room(module):
    return ".".join(module.split(".")[:2])


def allowed(module):
    """What the names of modules that it imports may begin with."""
    house = module.split(".")[0]
    within = {room(module)} if house in ("perceiver", "datamodules") else {house}
    within |= {f"{house}.{name}" for name in MAY_IMPORT.get(room(module), ())}
    return within | OTHERS.get(house, OTHERS["scripts"])


IMPORTS = imports()


def test_a_module_imports_from_the_rooms_below_its_own_alone():
    above = {
        (module, name)
        for module, names in IMPORTS.items()
        for name in names
        if not {name, *parents(name)} & allowed(module)
    }
    assert not above


def test_the_library_imports_optional_packages_when_they_are_asked_for_alone():
    optional = {"hydra", "wandb", "torchvision", "torchaudio", "timm", "transformers", "tokenizers"}
    found = {
        (path.name, name.partition(".")[0])
        for path in (ROOT / "perceiver").rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not {(file, name) for file, name in found if name in optional}


def test_no_modules_import_each_other_in_a_circle():
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))
