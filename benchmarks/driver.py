"""Worker processes, one a contestant, that step in turns while the others wait."""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median, quantiles
from typing import Any, TextIO

from benchmarks.configurations import Configuration
from benchmarks.contestants import LIBRARIES, PROJECT, Contestant, interpreter
from benchmarks.peak import SIDE

WORKER = Path(__file__).with_name("worker.py")
STEPS = ("forward", "train")
LEAST_ROUNDS = 3
# What glibc reads at the start of a process: it keeps freed memory for the next step, so that no
# contestant waits for pages.
KEEPING = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
# Nothing is looked for beyond this machine, and what is compiled is compiled from nothing.
ALONE = {"HF_HUB_OFFLINE": "1", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
TOLERANCE = 1e-3  # relative distance of outputs beyond which contestants are not at equal work


class Worker:
    """A process that answers commands.

    Args:
        library: whose interpreter runs it.
        device: "cpu" or "cuda".
        threads: of the CPU; 0 = torch's choice.
        log: where what it prints goes.
    """

    def __init__(self, library: str, *, device: str, threads: int, log: TextIO | None) -> None:
        python = interpreter(library)
        if python is None:
            raise FileNotFoundError(install_hint(library))
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        if not LIBRARIES[library].requirements:
            environment["PYTHONPATH"] = str(PROJECT)
        if threads:
            environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [str(python), "-P", str(WORKER), device, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment | KEEPING | ALONE,
            text=True,
        )

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a command; {"error": …} if the process died of it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        return json.loads(line) if line else {"error": "the process died (out of memory?)"}

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.process.wait()


class Pool:
    """The workers of a run, made when first needed and kept, and the matmul peak beside them.

    Args:
        device, threads, log: as in `Worker`.
        peak_side: size of the matrix products that find the peak; None = one that does.
    """

    def __init__(
        self,
        *,
        device: str = "cpu",
        threads: int = 0,
        log: TextIO | None = None,
        peak_side: int | None = None,
    ) -> None:
        self.device = device
        self._side = peak_side or SIDE[device]
        self._options = {"device": device, "threads": threads, "log": log}
        self._workers: dict[str, Worker] = {}
        self._rates: dict[str, list[float]] = {}

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            worker.close()

    def worker(self, name: str, who: Contestant | None = None) -> Worker:
        """The worker of a name, fit for a contestant (for this project, if none is named)."""
        held = self._workers.get(name)
        if held is None or held.process.poll() is not None:
            who = who or Contestant("ours")
            held = Worker(who.library, **self._options)
            self._workers[name] = held
        return held

    @property
    def names(self) -> tuple[str, ...]:
        """Of the workers that are there."""
        return tuple(self._workers)

    def keep(self, names: Collection[str]) -> None:
        """End all other workers and give their memory back."""
        for name in set(self._workers) - set(names):
            self._workers.pop(name).close()

    def measure_peaks(self) -> dict[str, float]:
        """The rates of matrix products now: of the best shape and of layers, in each precision."""
        rates: dict[str, float] = {}
        for precision in ("fp32", "bf16"):
            found = self.worker("peak").ask("peak", precision=precision, side=self._side)
            rates |= {precision: max(found["rates"]), f"{precision} layers": found["layers"]}
        for name, rate in rates.items():
            self._rates.setdefault(name, []).append(rate)
        return rates

    @property
    def peaks(self) -> dict[str, float]:
        """The medians of all rates measured so far."""
        return {name: median(rates) for name, rates in self._rates.items()}


def install_hint(library: str) -> str:
    """How to get a library that is not installed."""
    if LIBRARIES[library].requirements:
        return f"{library} is left out: python -m benchmarks.peers install {library}"
    return f"{library} is left out: pip install {LIBRARIES[library].distribution}"


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and number of some times."""
    low, _, high = quantiles(seconds, n=4) if len(seconds) > 1 else (seconds[0],) * 3
    return {"median": median(seconds), "low": low, "high": high, "count": len(seconds)}


def compare(
    pool: Pool,
    configuration: Configuration,
    contestants: Sequence[Contestant],
    *,
    rounds: int,
    steps: Sequence[str] = STEPS,
    turn_seconds: float = 0.5,
    seconds: float = math.inf,
    floors: bool = False,
) -> dict[str, Any]:
    """Measure contestants on one configuration, in turns.

    Args:
        pool: the workers.
        configuration: what they all compute.
        contestants: who.
        rounds: how often each has its turn at each step, and the matmul peaks are measured.
        steps: "forward", "train" or both.
        turn_seconds: quick steps are repeated within a turn for about so long.
        seconds: after so long no further round begins, though not before the third is over.
        floors: also time the operators of this project's last step, each alone, in every round.

    Raises:
        ValueError: if contestants with equal weights do not answer alike.
    """
    found: dict[str, dict[str, Any]] = {}
    for who in contestants:
        found[who.label] = _prepare(pool, configuration, who, steps)
    _check_agreement(found)
    ready = [who for who in contestants if "parameters" in found[who.label]]
    bases = [who for who in ready if floors and _has_floor(who)]
    for who in bases:
        _prepare_floor(pool, configuration, who)
    times: dict[tuple[str, str], list[float]] = {}
    alone: dict[str, list[dict[str, float]]] = {who.label: [] for who in bases}
    peaks: list[dict[str, float]] = []
    start = time.perf_counter()
    for number in range(rounds):
        if number >= LEAST_ROUNDS and time.perf_counter() - start > seconds:
            break
        peaks.append(pool.measure_peaks())
        for step in steps:
            for who in _rotated(ready, number):
                taken = times.setdefault((who.label, step), [])
                time.sleep(0.02)  # threads of the last one stop spinning
                usual = taken[-1] if taken else found[who.label]["first"][step]
                iterations = min(20, max(1, math.ceil(turn_seconds / usual)))
                answer = pool.worker(who.label).ask("time", kind=step, iterations=iterations)
                taken += answer.get("seconds", [])
        for who in bases:
            floor = pool.worker(_alone(who)).ask("floor", kind=steps[-1])
            alone[who.label] += [floor] if "operators" in floor else []
    for who in ready:
        entry = found[who.label]
        first = entry.pop("first")
        entry["seconds"] = {
            step: summary(times.get((who.label, step)) or [first[step]]) for step in steps
        }
    for label, floor in alone.items():
        if floor:
            medians = {key: median(one[key] for one in floor) for key in floor[0]}
            found[label]["floor"] = {steps[-1]: medians}
    return {
        "title": configuration.title,
        "sizes": configuration.as_json(),
        "freed_memory": "kept",
        "flops": {step: configuration.flops(step) for step in steps},
        "irreducible_flops": {step: configuration.irreducible_flops(step) for step in steps},
        "peaks": {name: median(rates[name] for rates in peaks) for name in peaks[0]},
        "contestants": found,
    }


def _alone(who: Contestant) -> str:
    return f"{who.label} alone"


def _prepare_floor(pool: Pool, configuration: Configuration, who: Contestant) -> None:
    # In a process of its own: it leaves the allocator in another state than steps do.
    fields = {"configuration": configuration.as_json(), "contestant": asdict(who)}
    pool.worker(_alone(who), who).ask("build", **fields)


def _has_floor(who: Contestant) -> bool:
    # A compiled step's products are the eager one's, and its other operators are made for it.
    return who.library == "ours" and not who.compiled and not who.options


def _prepare(
    pool: Pool, configuration: Configuration, who: Contestant, steps: Sequence[str]
) -> dict[str, Any]:
    """Build one contestant and take its memory and a first time at each kind of step."""
    try:
        worker = pool.worker(who.label, who)
    except FileNotFoundError as error:
        return {"absent": str(error)}
    fields = {"configuration": configuration.as_json(), "contestant": asdict(who)}
    entry = worker.ask("build", **fields)
    for what in ("memory", "resident", "total_memory", "first"):
        entry[what] = {}
    for step in steps:
        if "parameters" not in entry:
            break
        taken = worker.ask("memory", kind=step)
        if "allocated" not in taken:
            entry = taken
            break
        entry["memory"][step], entry["total_memory"][step] = taken["allocated"], taken["total"]
        if "rise" in taken:
            entry["resident"][step] = taken["rise"]
        entry["first"][step] = taken["seconds"]
        entry["first_seconds"] += taken["first_seconds"]
    if "parameters" not in entry:
        return {key: entry[key] for key in ("absent", "error") if key in entry}
    return entry


def _rotated(contestants: Sequence[Contestant], number: int) -> list[Contestant]:
    first = number % max(1, len(contestants))
    return [*contestants[first:], *contestants[:first]]


def _check_agreement(found: Mapping[str, dict[str, Any]]) -> None:
    """Set each contestant's distance from the first of equal weights; refuse unequal work."""
    reference: list[float] | None = None
    for label, entry in found.items():
        output = entry.pop("output", None)
        if output is None or label.startswith("lucidrains"):
            continue
        if reference is None:
            reference = output
        distance = math.dist(output, reference) / math.hypot(*reference)
        entry["distance"] = distance
        is_exact = not any(word in label for word in ("bf16", "medium"))
        if is_exact and not distance < TOLERANCE:
            raise ValueError(
                f"{label} is {distance:.1e} away from {next(iter(found))} in its outputs: "
                "the two do not compute the same"
            )
