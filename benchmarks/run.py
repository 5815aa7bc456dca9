"""Time this project beside every installed peer: python -m benchmarks.run

    python -m benchmarks.run --only small_image bytes --rounds 9
    python -m benchmarks.run --contestants ours ours+kernel=dense hf --only cross_261
    python -m benchmarks.run --device cuda --precision bf16-mixed --compile
    python -m benchmarks.run --quick                       # tiny sizes: does it run at all?

A contestant is a library and how it is run: ours, hf, lucidrains or krasserm; then, joined by +,
options of this project (kernel=dense, latent_attention.kernel=sdpa), a precision (medium,
bf16-mixed, bf16-true) and compile, the whole model, or regions, as compile=true of train.py does.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from benchmarks.configurations import CONFIGURATIONS, Configuration, tiny
from benchmarks.contestants import PRECISIONS, Contestant
from benchmarks.driver import STEPS, Pool, compare
from benchmarks.tables import comparison

TURN = 2.0  # seconds: several steps follow one another, as in training, where they are quick
DEFAULT = ("ours", "ours+bf16-mixed", "ours+bf16-true", "hf", "lucidrains", "krasserm")
# Compiled as well where more than the cross-attend runs, which is one operator of this project's.
WHOLE = ("ours+compile", "ours+bf16-mixed+compile", "hf+compile", "krasserm+compile")
REGIONS = ("ours+regions", "ours+bf16-mixed+regions")
COMPILED = {
    # Whole, a block that serves eight times is compiled eight times: peers are not compiled here.
    "imagenet_8x6": (*REGIONS, "ours+bf16-true+regions"),
    **dict.fromkeys(("imagenet_1x6", "small_image"), WHOLE + REGIONS),
    "bytes": (*WHOLE, "ours+bf16-true+compile", *REGIONS),
    "latents": WHOLE,
}


def parser(description: str) -> argparse.ArgumentParser:
    """The options that all commands share."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    made.add_argument("--threads", type=int, default=0, help="of the CPU; 0 = torch's choice")
    made.add_argument("--rounds", type=int, default=5, help="turns of every contestant")
    made.add_argument(
        "--seconds", type=float, default=60.0, help="after which no fourth or later turn begins"
    )
    made.add_argument(
        "--quick", action="store_true", help="tiny sizes, one round, no record of this machine"
    )
    made.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="where results go; default: results, in the folder of this machine's processor",
    )
    made.add_argument(
        "--add",
        action="store_true",
        help="keep the configurations that the file holds and that are not measured again",
    )
    made.add_argument("--log", type=Path, default=None, help="what the workers print")
    return made


def described(pool: Pool, threads: int, before: dict[str, Any]) -> dict[str, Any]:
    """The machine, its peaks, and the versions that the workers of a pool have.

    Args:
        pool: who measured.
        threads: of the CPU; 0 = torch's choice.
        before: the record that is added to.
    """
    found = machine.describe(pool.device, threads)
    for name in list(pool.names):
        found["versions"] |= pool.worker(name).ask("versions")
    return machine.joined(before.get("machine", {}), found | {"peaks": dict(pool.peaks)})


def destination(kind: str, arguments: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """Where results go, and what is there already if they are to be added.

    Raises:
        ValueError: what is there is of another machine, or no such thing; there is no such device.
    """
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no CUDA device; without it, the CPU runs")
    path = arguments.json
    if path is None and arguments.quick:  # says nothing of the machine, and takes no record's place
        path = Path(tempfile.gettempdir()) / "perceiver-benchmarks" / f"{kind}.json"
    path = path or machine.place(kind, arguments.device)
    if arguments.add and path.exists():
        return path, machine.record(path, kind, arguments.device, arguments.threads)
    return path, {}


def write(path: Path, results: dict[str, Any]) -> None:
    """Write results, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def contestants(labels: Iterable[str], precision: str | None, compiled: bool) -> list[Contestant]:
    """Contestants by their labels, all in one precision or compiled if so asked."""
    made = [Contestant.parse(label) for label in labels]
    if compiled:
        made = [replace(who, compiled=who.compiled or "compile") for who in made]
    if precision:
        made = [replace(who, precision=precision) for who in made]
    return list({who.label: who for who in made}.values())


def measure(
    chosen: dict[str, tuple[Configuration, Sequence[Contestant]]],
    arguments: argparse.Namespace,
    *,
    kind: str,
    steps: Sequence[str] = STEPS,
) -> dict[str, Any]:
    """Compare contestants on configurations, printing a table after each, and write the results."""
    path, before = destination(kind, arguments)
    results: dict[str, Any] = {"kind": kind, "configurations": before.get("configurations", {})}
    log = open(arguments.log, "w") if arguments.log else open(os.devnull, "w")  # noqa: SIM115
    side = 64 if arguments.quick else None
    options = {"device": arguments.device, "threads": arguments.threads, "peak_side": side}
    with log, Pool(**options, log=log) as pool:
        for name, (configuration, who) in chosen.items():
            if arguments.quick:
                configuration = tiny(configuration)
            pool.keep({w.label for w in who} | {"peak"})
            found = compare(
                pool,
                configuration,
                who,
                rounds=1 if arguments.quick else arguments.rounds,
                steps=steps,
                turn_seconds=0.0 if arguments.quick else TURN,
                seconds=arguments.seconds,
                floors=kind == "peers",
            )
            results["configurations"][name] = found | {"command": command()}
            results["command"] = _commands(results["configurations"])
            results["machine"] = described(pool, arguments.threads, before)
            write(path, results)
            print(comparison(name, found), flush=True)
    print(f"written: {path}")
    return results


def _commands(configurations: dict[str, Any]) -> str:
    """Those that measured what is there now."""
    return "\n".join(dict.fromkeys(found["command"] for found in configurations.values()))


def command() -> str:
    """The command line that is running, as another would type it.

    Folders become DIR; where results and logs go is left out.
    """
    module, words = Path(sys.argv[0]).stem, []
    given = [part for word in sys.argv[1:] for part in _parts(word)]
    for word, before in zip(given, [module, *given], strict=False):
        if {word, before} & {"--json", "--log", "--out"}:
            continue
        words.append("DIR" if before in ("--root", "--data-root", "--before") else word)
    return " ".join(["python -m", f"benchmarks.{module}", *words])


def _parts(word: str) -> list[str]:
    """--option=value as --option value."""
    return word.split("=", 1) if word.startswith("--") else [word]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--only", nargs="+", choices=CONFIGURATIONS, metavar="CONFIGURATION")
    options.add_argument("--contestants", nargs="+", metavar="CONTESTANT")
    options.add_argument("--precision", choices=PRECISIONS, help="of all contestants")
    options.add_argument("--compile", action="store_true", help="compile all contestants")
    options.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    arguments = options.parse_args()
    try:
        chosen = {}
        for name in arguments.only or CONFIGURATIONS:
            labels = arguments.contestants or (*DEFAULT, *COMPILED.get(name, ()))
            who = contestants(labels, arguments.precision, arguments.compile)
            chosen[name] = CONFIGURATIONS[name], who
        measure(chosen, arguments, kind="peers", steps=arguments.steps)
    except ValueError as error:
        options.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
