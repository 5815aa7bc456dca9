"""What train.py reaches as it comes, beside what a user would write: python -m benchmarks.learning

    python -m benchmarks.learning                              # jobs that need no files
    python -m benchmarks.learning --data-root DIR              # sst2, cifar10 and fsdd as well
    python -m benchmarks.learning --jobs wine diabetes --add   # some again

Each job is trained with three seeds by train.py with its defaults, each in a process of its own,
and tested on the split on which the simple model is. --data-root is a folder with sst2/, cifar10/
and fsdd/recordings/. The page is docs/learning.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, simple
from benchmarks.contestants import PROJECT
from benchmarks.learning_page import write_page
from benchmarks.run import command, destination, parser, write

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Job:
    """A data set, how to train on it, and what a user would write instead.

    Args:
        title: for the page.
        prepare: (folder of the data, folder to write to) → overrides, train and test of the simple
            model, each (inputs, labels).
        alternative: the simple model, of `benchmarks.simple`.
        metric: "acc", or "mae" of values.
        files: the folder below --data-root that it needs; "" = none.
    """

    title: str
    prepare: Callable[[Path, Path], tuple[list[str], Any, Any]]
    alternative: Callable[..., np.ndarray]
    metric: str = "acc"
    files: str = ""


def _table(name: str, *, target: str) -> Callable[[Path, Path], tuple[list[str], Any, Any]]:
    """A data set of scikit-learn as a CSV, a fifth of it held out, a tenth for validation."""

    def prepare(_: Path, folder: Path) -> tuple[list[str], Any, Any]:
        from sklearn import datasets
        from sklearn.model_selection import train_test_split

        rows, labels = getattr(datasets, f"load_{name}")(return_X_y=True)
        strata = labels if target == "class" else None
        learned, tested = train_test_split(
            np.arange(len(rows)), test_size=0.2, random_state=0, stratify=strata
        )
        _, held = train_test_split(
            learned,
            test_size=0.125,
            random_state=0,
            stratify=None if strata is None else labels[learned],
        )
        split = np.full(len(rows), "train", dtype=object)
        split[tested], split[held] = "test", "val"
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*(f"x{n}" for n in range(rows.shape[1])), target, "split"])
            for row, label, part in zip(rows, labels, split, strict=True):
                shown = f"class {label}" if target == "class" else float(label)
                writer.writerow([*map(float, row), shown, part])
        overrides = ["data=manifest", f"data.path={folder}/{name}.csv", f"data.target={target}"]
        # The simple model chooses nothing by validation: it learns from those rows as well.
        return overrides, (rows[learned], labels[learned]), (rows[tested], labels[tested])

    return prepare


def _sst2(root: Path, _: Path) -> tuple[list[str], Any, Any]:
    def read(name: str) -> tuple[list[str], np.ndarray]:
        lines = (root / "sst2" / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
        pairs = [line.rsplit("\t", 1) for line in lines]
        return [text for text, _ in pairs], np.array([int(label) for _, label in pairs])

    return ["data=sst2", f"data.root={root}/sst2"], read("train"), read("test")


def _cifar10(root: Path, _: Path) -> tuple[list[str], Any, Any]:
    names = sorted(path.name for path in (root / "cifar10" / "train").iterdir())

    def read(split: str) -> tuple[list[Path], np.ndarray]:
        found = [
            (path, label)
            for label, name in enumerate(names)
            for path in sorted((root / "cifar10" / split / name).glob("*.jpg"))
        ]
        return [path for path, _ in found], np.array([label for _, label in found])

    return (
        ["experiment=cifar10", f"data.root={root}/cifar10"],
        read("train"),
        read("test"),
    )


def _fsdd(root: Path, _: Path) -> tuple[list[str], Any, Any]:
    files = sorted((root / "fsdd" / "recordings").glob("*.wav"))

    def read(is_test: bool) -> tuple[list[Path], np.ndarray]:
        some = [file for file in files if (int(file.stem.split("_")[2]) < 5) == is_test]
        return some, np.array([int(file.name[0]) for file in some])

    return ["data=fsdd", f"data.root={root}/fsdd/recordings"], read(False), read(True)


JOBS = {
    "wine": Job("wine, 178 rows of 13 numbers", _table("wine", target="class"), simple.numbers),
    "breast_cancer": Job(
        "breast cancer, 569 rows of 30 numbers",
        _table("breast_cancer", target="class"),
        simple.numbers,
    ),
    "digits_table": Job(
        "digits, 1,797 rows of 64 numbers", _table("digits", target="class"), simple.kernel
    ),
    "diabetes": Job(
        "diabetes, 442 rows of 10 numbers → a value",
        _table("diabetes", target="value"),
        simple.line,
        metric="mae",
    ),
    "sst2": Job("SST-2, 6,919 sentences", _sst2, simple.words, files="sst2"),
    "cifar10": Job("CIFAR-10, 5,000 photographs", _cifar10, simple.pictures, files="cifar10"),
    "fsdd": Job("spoken digits, 2,700 recordings", _fsdd, simple.sounds, files="fsdd"),
}


def score(metric: str, answers: np.ndarray, truth: np.ndarray) -> float:
    """The share that is right, or the mean absolute error."""
    return float((answers == truth).mean() if metric == "acc" else np.abs(answers - truth).mean())


def train(overrides: list[str], *, seed: int, metric: str, threads: int) -> dict[str, Any]:
    """What a run leaves: its score on the test split, seconds, parameters and curve.

    Raises:
        RuntimeError: with the last lines of what it said, if the run fails.
    """
    environment = dict(os.environ) | {"PYTHONPATH": str(PROJECT)}
    if threads:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "train.py", *overrides, f"seed={seed}", f"hydra.run.dir={folder}/run"],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        seconds = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError("\n".join(done.stderr.splitlines()[-5:]))
        run = Path(folder) / "run"
        results = json.loads((run / "results.json").read_text(encoding="utf-8"))
        with (run / "metrics" / "metrics.csv").open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get(f"val/{metric}")]
    return {
        "seed": seed,
        "score": results[f"test/{metric}"],
        "seconds": round(seconds, 1),
        "parameters": results["num_params"],
        "curve": [float(row[f"val/{metric}"]) for row in rows],
    }


def measure(job: Job, root: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """A job's simple model and runs."""
    with tempfile.TemporaryDirectory() as folder:
        overrides, learned, tested = job.prepare(root, Path(folder))
        start = time.perf_counter()
        answers = job.alternative(*learned, tested[0])
        seconds = round(time.perf_counter() - start, 1)
        shown = [word if "=/" not in word else f"{word.split('=')[0]}=…" for word in overrides]
        runs = [
            train(overrides, seed=seed, metric=job.metric, threads=arguments.threads)
            for seed in SEEDS[: 1 if arguments.quick else None]
        ]
    return {
        "title": job.title,
        "metric": job.metric,
        "overrides": shown,
        "simple": {
            "what": (job.alternative.__doc__ or "").strip().rstrip("."),
            "score": score(job.metric, answers, tested[1]),
            "seconds": seconds,
        },
        "runs": runs,
        "command": command(),
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--jobs", nargs="+", choices=JOBS)
    options.add_argument("--data-root", type=Path, help="folder of sst2, cifar10 and fsdd")
    arguments = options.parse_args()
    root = arguments.data_root
    names = arguments.jobs or [n for n, job in JOBS.items() if root or not job.files]
    lacking = [n for n in names if JOBS[n].files and not (root and (root / JOBS[n].files).is_dir())]
    if lacking:
        options.exit(1, f"error: {', '.join(lacking)} needs --data-root=DIR with its files\n")
    try:
        path, before = destination("learning", arguments)
    except ValueError as error:
        options.exit(1, f"error: {error}\n")
    found = machine.joined(
        before.get("machine", {}), machine.describe(arguments.device, arguments.threads)
    )
    results = {"kind": "learning", "machine": found, "jobs": before.get("jobs", {})}
    for name in names:
        results["jobs"][name] = measure(JOBS[name], root and root.resolve(), arguments)
        write(path, results)
        found = results["jobs"][name]
        scores = " ".join(f"{run['score']:.4g}" for run in found["runs"])
        print(f"{name:14} simple {found['simple']['score']:.4g}  train.py {scores}", flush=True)
    if not arguments.quick:
        write_page(results)


if __name__ == "__main__":
    main()
