"""What this project sets out to reach, beside what was measured and what the machine allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import mean
from typing import Any

from benchmarks.configurations import CONFIGURATIONS
from benchmarks.scaling import curve, exponent
from benchmarks.tables import utilisation

Results = Mapping[str, Any]  # kind → what the command of that kind wrote
PEERS = ("hf", "lucidrains", "krasserm")
GIB = 2**30
HALF = ("bf16-mixed", "bf16-true")
GPU_STEPS = "ImageNet training step, bf16"  # the section of `benchmarks.gpu` that a bar is in
DRIFT = 1.05  # between steps and operators, of older records timed minutes apart
HALF_REGIONS, HALF_COMPILED = ([f"{half}+{how}" for half in HALF] for how in ("regions", "compile"))


@dataclass(frozen=True)
class Bar:
    """One promise.

    Args:
        what: in words.
        target: the number to reach.
        measure: from the results to the number reached; raises KeyError where it was not measured.
        at_most: whether smaller is better.
        roof: from the results to the best number that the machine allows, if there is such a bound.
        alone: from the results, and which operators of this project's step take time ("products":
            matrix products and attention kernels; "operators": all), to the number that were
            reached if each ran at the pace that it has alone.
        unit: behind the numbers.
        device: where it is to be reached.
    """

    what: str
    target: float
    measure: Callable[[Results], float]
    at_most: bool = False
    roof: Callable[[Results], float] | None = None
    alone: Callable[[Results, str], float] | None = None
    unit: str = "×"
    device: str = "cpu"

    def is_met(self, value: float) -> bool:
        return value <= self.target if self.at_most else value >= self.target


def _found(results: Results, name: str) -> Mapping[str, Any]:
    return results["peers"]["configurations"][name]


def _seconds(found: Mapping[str, Any], label: str) -> float:
    return found["contestants"][label]["seconds"]["train"]["median"]


def _floor(found: Mapping[str, Any], label: str, which: str) -> float:
    floor = found["contestants"][label]["floor"]["train"]
    # A record without parts is of the products alone.
    return (floor if isinstance(floor, Mapping) else {"products": floor})[which]


def fastest_peer(found: Mapping[str, Any], *, compiled: bool = False) -> float:
    """Seconds of the quickest training step among peers in fp32, perhaps compiled ones as well."""
    peers = [*PEERS, *(f"{peer}+compile" for peer in PEERS)] if compiled else PEERS
    present = [peer for peer in peers if "seconds" in found["contestants"].get(peer, {})]
    if not present:
        raise KeyError("no peer was measured")
    return min(_seconds(found, peer) for peer in present)


def leanest_peer(found: Mapping[str, Any]) -> float:
    """Bytes of the leanest training step among peers in fp32."""
    present = [peer for peer in PEERS if "memory" in found["contestants"].get(peer, {})]
    if not present:
        raise KeyError("no peer was measured")
    return min(found["contestants"][peer]["memory"]["train"] for peer in present)


def _speedup(name: str, target: float, label: str = "ours") -> Bar:
    compiled = "compile" in label or "regions" in label

    def measure(results: Results) -> float:
        found = _found(results, name)
        return fastest_peer(found, compiled=compiled) / _seconds(found, label)

    def roof(results: Results) -> float:
        found = _found(results, name)
        peak = found["peaks"]["bf16" if "bf16" in label else "fp32"]
        peer = fastest_peer(found, compiled=compiled)
        return peer * peak / found["irreducible_flops"]["train"]

    def alone(results: Results, which: str) -> float:
        found = _found(results, name)
        return fastest_peer(found, compiled=compiled) / _floor(found, label, which)

    title = CONFIGURATIONS[name].title
    how = "".join(f", {word}" for word in label.split("+")[1:])
    return Bar(
        f"{title}{how}: training step, times as fast as the fastest peer",
        target,
        measure,
        roof=roof,
        alone=None if compiled else alone,
    )


def _memory(name: str, target: float) -> Bar:
    def measure(results: Results) -> float:
        found = _found(results, name)
        return 100 * found["contestants"]["ours"]["memory"]["train"] / leanest_peer(found)

    title = f"{CONFIGURATIONS[name].title}: memory of a training step, part of the leanest peer's"
    return Bar(title, target, measure, at_most=True, unit=" %")


def _exponent(what: str, word: str) -> Bar:
    def measure(results: Results) -> float:
        axis = results["scaling"]["axes"]["tokens"]
        points = curve(axis, "ours", "train", what)
        return exponent({m: y for m, y in points.items() if m <= 1_100_000}, axis["fitted_from"])

    return Bar(
        f"{word} of a training step against M, 10⁴ to 10⁶ tokens: exponent",
        1.02,
        measure,
        at_most=True,
        unit="",
    )


def _process(size: int, step: str) -> Callable[[Results], float]:
    def measure(results: Results) -> float:
        points = results["scaling"]["axes"]["tokens"]["points"]
        return points[str(size)]["contestants"]["ours"]["total_memory"][step] / GIB

    return measure


def _best_half(results: Results) -> float:
    """Of what `benchmarks.run` measured of one example, and `benchmarks.gpu` of a batch."""
    found = results.get("peers", {}).get("configurations", {}).get("imagenet_8x6")
    shares = [
        utilisation(found, label, "train")
        for label, entry in (found["contestants"].items() if found else ())
        if label.startswith("ours") and "bf16" in label and "seconds" in entry
    ]
    for row in results.get("gpu", {}).get("sections", {}).get(GPU_STEPS, ()):
        if row["name"] == "imagenet_8x6" and "dense_utilisation" in row:
            shares.append(row["dense_utilisation"])
    if not shares:
        raise KeyError("nothing ran in bf16")
    return 100 * max(shares)


def _latents(results: Results) -> float:
    return 100 * utilisation(_found(results, "latents"), "ours", "train")


def _latents_alone(results: Results, which: str) -> float:
    found = _found(results, "latents")
    return 100 * found["flops"]["train"] / _floor(found, "ours", which) / found["peaks"]["fp32"]


def _layers(results: Results) -> float:
    peaks = _found(results, "latents")["peaks"]
    return 100 * peaks["fp32 layers"] / peaks["fp32"]


def _lost_in_half(results: Results) -> float:
    found = results["training"]["accuracy"]["default"]
    lost = [plain - half for plain, half in zip(found["auto"], found["bf16"], strict=False)]
    return 100 * mean(lost)  # of the seeds that both have


BARS: tuple[Bar, ...] = (
    _speedup("cross_261", 6),
    _speedup("cross_1024", 11),
    _memory("cross_261", 100 / 15),
    _memory("cross_1024", 100 / 15),
    _speedup("imagenet_8x6", 1.15),
    _speedup("imagenet_8x6", 1.15, "ours+regions"),
    _speedup("imagenet_1x6", 1.9),
    _speedup("imagenet_1x6", 1.9, "ours+compile"),
    _speedup("small_image", 1.3),
    _speedup("small_image", 1.3, "ours+compile"),
    _speedup("bytes", 1.1),
    _speedup("bytes", 1.1, "ours+compile"),
    _memory("imagenet_8x6", 70),
    _memory("imagenet_1x6", 70),
    _memory("small_image", 70),
    _memory("bytes", 70),
    *(_speedup("imagenet_8x6", 3, f"ours+{how}") for how in (*HALF, *HALF_REGIONS)),
    *(_speedup("small_image", 2.7, f"ours+{how}") for how in (*HALF, "bf16-mixed+compile")),
    *(_speedup("bytes", 3, f"ours+{how}") for how in (*HALF, *HALF_COMPILED)),
    Bar(
        "the default job in bf16-mixed: points of test accuracy below fp32, mean of the seeds (one "
        "of the 359 examples is 0.28)",
        0.28,
        _lost_in_half,
        at_most=True,
        unit=" points",
    ),
    Bar(
        "the latent layers alone: share of the matmul peak",
        80,
        _latents,
        roof=_layers,
        alone=_latents_alone,
        unit=" %",
    ),
    _exponent("seconds", "time"),
    _exponent("memory", "memory"),
    Bar(
        "training step on a million tokens: the whole process",
        4,
        _process(1_000_000, "train"),
        at_most=True,
        unit=" GiB",
    ),
    Bar(
        "forward pass over ten million tokens: the whole process",
        4,
        _process(10_004_569, "forward"),
        at_most=True,
        unit=" GiB",
    ),
    Bar(
        "ImageNet Perceiver IO, 8 × 6 layers: training step, share of the bf16 matmul peak",
        60,
        _best_half,
        unit=" %",
        device="cuda",
    ),
)


def roofline(name: str, found: Mapping[str, Any]) -> str:
    """Why the training step of a configuration cannot be much faster, in one sentence."""
    work, peak = found["irreducible_flops"]["train"], found["peaks"]["fp32"]
    least, own = work / peak, _seconds(found, "ours")
    share = found["flops"]["train"] / fastest_peer(found) / peak
    return (
        f"`{name}`: {work / 1e9:,.0f} of {found['flops']['train'] / 1e9:,.0f} GFLOP are products "
        f"that no exact rewriting avoids, {1e3 * least:,.0f} ms at the fp32 peak; this project "
        f"takes {1e3 * own:,.0f} ms, the fastest peer {1e3 * fastest_peer(found):,.0f} ms "
        f"({share:.0%} of the peak)"
    )


def evaluate(bar: Bar, results: Results) -> tuple[float | None, ...]:
    """(reached, with products alone, with operators alone, the roof); None: was not measured."""

    def found(what: Callable[..., float] | None, *which: str) -> float | None:
        try:
            return what(results, *which) if what else None
        except (KeyError, ValueError):
            return None

    alone = [found(bar.alone, which) for which in ("products", "operators")]
    return found(bar.measure), *alone, found(bar.roof)


def shortfall(bar: Bar, results: Results) -> str | None:
    """What stands between a bar that was missed and this project, in shares of its time.

    None for a bar that was met, or not measured, or one of memory. A bar is called out of reach
    only where the operators take more than it allows by more than the machine's drift.
    """
    reached, products, operators, roof = evaluate(bar, results)
    if reached is None or roof is None or bar.is_met(reached):
        return None
    allowed = reached / bar.target
    if products is None or operators is None:
        return (
            f"{bar.what}: the bar allows {allowed:.0%} of the time; the products at the peak take "
            f"{reached / roof:.0%}: not shown out of reach"
        )
    least = reached / operators
    is_out = least > DRIFT * allowed
    verdict = ": no step made of them meets it" if is_out else ": not shown out of reach"
    return (
        f"{bar.what}: the bar allows {allowed:.0%} of the time; the products alone take "
        f"{reached / products:.0%}, all operators alone {least:.0%}{verdict}"
    )
