"""Examples a second of `python train.py` in several variants: python -m benchmarks.training

    python -m benchmarks.training --data-root DIR                  # the default job and fsdd
    python -m benchmarks.training --jobs default --variants auto dense bf16
    python -m benchmarks.training --before DIR                     # beside another checkout
    python -m benchmarks.training --variant wide model.encoder.latent_dim=192
    python -m benchmarks.training --rounds 0 --accuracy auto bf16 float8 --add

Runs follow one another in turns, each a process of its own. What is read is the callback's
`train/examples_per_second`, without the first epoch. With --accuracy, runs of the variants named
there go on to their end in the default job, and what is read is their accuracy on the test set.
With --rounds 0 that is all.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contestants import PROJECT
from benchmarks.driver import Pool, summary
from benchmarks.run import command, described, destination, parser, write
from benchmarks.tables import table

Rates = dict[str, dict[str, list[float]]]  # job → variant → examples a second
RATE = "train/examples_per_second"
JOBS = {"default": (), "fsdd": ("experiment=fsdd",)}
SEEDS = range(5)  # of the runs that go on to their end


@dataclass(frozen=True)
class Variant:
    """One way to run the job.

    Args:
        overrides: of the configuration.
        project: the checkout whose train.py runs.
    """

    overrides: tuple[str, ...] = ()
    project: Path = field(default=PROJECT)


def _kernels(name: str) -> tuple[str, ...]:
    return (f"model.cross_attention.kernel={name}", f"model.latent_attention.kernel={name}")


VARIANTS = {
    "auto": Variant(),
    "dense": Variant(_kernels("dense")),
    "sdpa": Variant(_kernels("sdpa")),
    "bf16": Variant(("trainer.precision=bf16-mixed",)),
    "float8": Variant(("trainer.precision=bf16-mixed", "float8=true")),
    "foreach": Variant(("optimizer.fused=false", "optimizer.foreach=true")),
    "loop": Variant(("optimizer.fused=false", "optimizer.foreach=false")),
    "regions": Variant(("compile=true",)),
    "compiled": Variant(("compile=whole",)),
}


def examples_per_second(folder: Path) -> list[float]:
    """The rate of every epoch but the first, which pays for warming up.

    Raises:
        ValueError: if the run recorded fewer than two epochs.
    """
    with open(folder / "metrics" / "metrics.csv", encoding="utf-8", newline="") as file:
        rates = [float(row[RATE]) for row in csv.DictReader(file) if row.get(RATE)]
    if len(rates) < 2:
        raise ValueError(f"a run of {len(rates)} epochs has no rate: give it two or more")
    return rates[1:]


def accuracy(folder: Path) -> list[float]:
    """The share of the test set that the finished run has right."""
    return [json.loads((folder / "results.json").read_text(encoding="utf-8"))["test/acc"]]


def run(
    variant: Variant,
    overrides: Sequence[str],
    threads: int,
    read: Callable[[Path], list[float]] = examples_per_second,
) -> list[float]:
    """Train in a folder of its own, which is removed, and return what is read there.

    Raises:
        RuntimeError: with the last lines of what it said, if the run fails.
    """
    environment = dict(os.environ) | {"PYTHONPATH": str(variant.project)}
    if threads:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        arguments = [*overrides, "logger=csv", *variant.overrides]
        done = subprocess.run(
            [sys.executable, "train.py", *arguments, f"hydra.run.dir={folder}/run"],
            cwd=variant.project,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError("\n".join(done.stderr.splitlines()[-5:]))
        return read(Path(folder) / "run")


def main() -> None:
    options = parser(__doc__)
    options.set_defaults(rounds=2)
    options.add_argument("--jobs", nargs="+", choices=JOBS, default=None)
    options.add_argument("--variants", nargs="+", choices=VARIANTS, default=[*VARIANTS])
    options.add_argument(
        "--variant", nargs="+", action="append", default=[], metavar=("NAME", "OVERRIDE")
    )
    options.add_argument("--before", type=Path, help="another checkout of this project")
    options.add_argument("--data-root", type=Path, help="the recordings of experiment=fsdd")
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--accuracy", nargs="+", choices=VARIANTS, default=[], metavar="VARIANT")
    arguments = options.parse_args()
    try:
        path, before = destination("training", arguments)
    except ValueError as error:
        options.exit(1, f"error: {error}\n")
    variants = {name: VARIANTS[name] for name in arguments.variants}
    variants |= {name: Variant(tuple(words)) for name, *words in arguments.variant}
    if arguments.before:
        variants[f"before ({_commit(arguments.before)})"] = Variant(
            project=arguments.before.resolve()
        )
    jobs = _jobs(arguments)
    rates: dict[str, dict[str, list[float]]] = {
        job: {name: [] for name in variants} for job in jobs
    }
    for _ in range(1 if arguments.quick else arguments.rounds):
        for job, overrides in jobs.items():
            for name, variant in variants.items():
                epochs = 2 if arguments.quick else arguments.epochs
                short = (*overrides, "test=false", f"trainer.max_epochs={epochs}")
                rates[job][name] += run(variant, short, arguments.threads)
    right: Rates = {"default": {}}
    for name in arguments.accuracy:
        right["default"][name] = []
        for seed in SEEDS[: 1 if arguments.quick else None]:
            overrides = (*JOBS["default"], f"seed={seed}")
            right["default"][name] += run(VARIANTS[name], overrides, arguments.threads, accuracy)
    _report(rates, right, arguments, path, before)


def _commit(checkout: Path) -> str:
    words = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(words, capture_output=True, text=True)
    return found.stdout.strip() or "no commit"


def _jobs(arguments: argparse.Namespace) -> dict[str, tuple[str, ...]]:
    wanted = arguments.jobs or (["default", "fsdd"] if arguments.data_root else ["default"])
    jobs = {name: JOBS[name] for name in wanted}
    if "fsdd" in jobs and arguments.data_root:
        jobs["fsdd"] = (*jobs["fsdd"], f"data.root={arguments.data_root.resolve()}")
    return jobs


def _report(
    rates: Rates,
    right: Rates,
    arguments: argparse.Namespace,
    path: Path,
    before: dict[str, Any],
) -> None:
    commands = [*before.get("command", "").splitlines(), command()]
    results: dict[str, Any] = {"kind": "training", "command": "\n".join(dict.fromkeys(commands))}
    measured = {
        job: {name: summary(values) for name, values in variants.items() if values}
        for job, variants in rates.items()
    }
    # Rates are compared with others of the same run; accuracies stand for themselves.
    results["jobs"] = before.get("jobs", {}) | {
        job: found for job, found in measured.items() if found
    }
    ended = before.get("accuracy", {})
    results["accuracy"] = ended | {job: ended.get(job, {}) | found for job, found in right.items()}
    with Pool(device=arguments.device, threads=arguments.threads) as pool:
        pool.worker("ours")
        results["machine"] = described(pool, arguments.threads, before)
    write(path, results)
    for job, variants in rates.items():
        rows = [
            (
                name,
                f"{median(values):,.0f}" if values else "–",
                _percent(right.get(job, {}).get(name, [])),
            )
            for name, values in variants.items()
        ]
        print(table([job, "examples/s", "test accuracy"], rows), end="\n\n")


def _percent(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2%}" for value in values) or "–"


if __name__ == "__main__":
    main()
