"""Options of a config are of the types that the classes behind them take."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from omegaconf import OmegaConf

from runner.options import check_options

if TYPE_CHECKING:
    from nowhere import Unknown


class Base:
    def __init__(self, *, width: int, names: tuple[str, ...] = (), **rest: object) -> None: ...


class Derived(Base):
    """Hands on what it does not know."""

    def __init__(self, *, rate: float | None = None, path: Path | str = "", **rest: int) -> None:
        super().__init__(width=1, **rest)


def function(loss: float, extra=None) -> None: ...


def unresolved(thing: "Unknown") -> None: ...


def check(name: str, **options: object) -> None:
    config = {"part": {"list": [{"_target_": f"{__name__}.{name}", **options}]}, "unknown": None}
    check_options(OmegaConf.create(config))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Derived", {"rate": 1, "width": 3, "path": "x", "other": 5}),
        ("Derived", {"rate": None, "width": "${unknown}"}),
        ("Derived", {"names": ["a", "b"]}),
        ("Derived", {"_partial_": "anything"}),
        ("Derived", {"rate": {"_target_": f"{__name__}.function", "loss": 1.0}}),
        ("function", {"loss": 1e-3, "extra": "x"}),
        ("unresolved", {"thing": 1}),
    ],
)
def test_what_fits_passes(name, options):
    check(name, **options)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (
            "Derived",
            {"rate": "1"},
            "part.list.0.rate=1 does not fit: .*Derived takes rate as float",
        ),
        ("Derived", {"rate": True}, "rate=True does not fit"),
        ("Derived", {"width": 1.5}, "width=1.5 does not fit: .*Derived takes width as int"),
        ("Derived", {"names": ["a", ["b"]]}, r"names\.1=\['b'\] does not fit"),
        ("Derived", {"width": None}, "width=null does not fit: .*Derived takes width as int"),
        ("function", {"loss": "low"}, "loss=low does not fit"),
        ("function", {"lost": 1}, "part.list.0.lost is no option of .*function, .* loss, extra"),
        ("Derived", {"rate": {"_target_": f"{__name__}.function", "loss": "x"}}, "rate.loss=x"),
    ],
)
def test_what_does_not_fit_is_named_with_what_would(name, options, words):
    with pytest.raises(ValueError, match=words):
        check(name, **options)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"seed": "abc"}, "seed=abc does not fit: a run takes seed as int"),
        ({"seed": None}, "seed=null does not fit"),
        ({"fit": "maybe"}, "fit=maybe does not fit: a run takes fit as bool"),
        ({"test": 1}, "test=1 does not fit"),
        ({"ckpt_path": 3}, "ckpt_path=3 does not fit: a run takes ckpt_path as str | None"),
    ],
)
def test_what_a_run_itself_takes_is_held_against_its_types(option, words):
    right = {"seed": 3, "fit": True, "test": False, "ckpt_path": None}
    check_options(OmegaConf.create(right))
    with pytest.raises(ValueError, match=re.escape(words)):
        check_options(OmegaConf.create(right | option))
