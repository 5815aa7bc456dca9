"""Write docs/performance.md and its plots from results: python -m benchmarks.page

    python -m benchmarks.page benchmarks/results/*/*.json
    python -m benchmarks.page FILE ... --out DIR

Every number of the page comes from the files that the other commands wrote.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.bars import BARS, Results, evaluate, roofline, shortfall
from benchmarks.contestants import LIBRARIES, PROJECT
from benchmarks.machine import RESULTS, slug, title
from benchmarks.plots import ablation_bars, scaling_curves
from benchmarks.scaling import curve, exponent
from benchmarks.tables import (
    NAMES,
    comparison,
    costs,
    loading,
    mebibytes,
    milliseconds,
    plain,
    spread,
    table,
)

UNMEASURED = """## On a {0} device

Not measured: `python -m benchmarks.run --device {0}` and the other commands with that option, and
`python -m benchmarks.gpu`, do where there is one.
"""

INTRODUCTION = """# Performance

To train faster, choose from the next section. To see how fast this project is beside others, and
what each technique pays, read the tables of your kind of machine further below.

## Train faster

| option | where it helps |
|---|---|
| `trainer.precision=bf16-mixed` | where the processor or GPU multiplies in bf16 |
| `compile=true` | large models: compiles latent blocks and decoder (*regions* below); the first step says how long it took |
| `compile=whole` | the whole model, where all batches look alike |
| `compile=graphs` | on GPUs: the same, replayed as CUDA graphs |
| `matmul_precision=high` | on GPUs: multiplies float32 as TF32 |
| `matmul_precision=medium` | also on CPUs with AMX: multiplies float32 as bfloat16, all else stays float32 |
| `float8=true` (extra `[float8]`) | linear layers in eight bits, on GPUs that have them; its accuracy is below |

By default float32 products are exact, and run in whichever of torch's two CPU libraries is faster: on
AMD's Zen 5 that is oneDNN, not MKL.

## Measure it

```bash
python -m benchmarks.peers install    # the peers, each in an environment of its own
python -m benchmarks.run              # everyone in turns; --quick: tiny sizes, --device cuda
python -m benchmarks.scaling          # against tokens, latents, layers and batch
python -m benchmarks.ablations        # one thing changed at a time
python -m benchmarks.cost             # every form of attention, which `auto` chooses from
python -m benchmarks.training         # examples per second of python train.py
python -m benchmarks.data             # the loader
python -m benchmarks.page             # this page from the results
```

## What was measured

This page is written by `python -m benchmarks.page` from what these commands recorded; no number is
typed in by hand. Tables recorded before the joined projections, the cache of moments and the
allocator's setting were removed still include them.

All contestants compute the same thing: the same sizes, the same inputs and, but for lucidrains,
whose layers are not quite the others', the same weights (the column *distance* is how far a
contestant's outputs are from ours, relatively). Each runs in a process of its own, and they take
turns: while one steps, the others wait. Every process, of whatever library, keeps the memory that a
step freed for the next one: what is compared is steps, and not the system's way of handing out
pages; a table that was recorded without says so.
Times are medians over all turns, *spread*
is half the distance between the quartiles. A training step is forward, mean square of the outputs,
backward. *Memory* is what the tensors of a training step take at their peak beside what stood
before it: parameters, gradients and inputs are there already, for everyone. *Resident* is how far
the whole process rises, with what its allocator cannot use again and the buffers of libraries; it
varies by a tenth and more. *Of the peak* divides the work of the dense definition (2 operations a
multiply-add, three forward passes a training step) by the time and by the rate of plain matrix
products, in the same precision and by the quicker of the libraries that torch has for them (before
there was a record of a second machine, by the one that it takes itself), the median over the same
turns; a form that needs fewer operations than the definition can pass 100 %.

The Fourier codes of the peers' own adapters are part of their step, except in the cross-attends
alone and in the ragged batch, where they are given the tokens ready-made. lucidrains' layers have
no biases on queries, keys and values, and gated MLPs; its inner widths are set so that parameters
are as many, to half a per cent. In the text model the peers' output layer is the embedding itself;
ours has weights of its own, 0.4 % more parameters for the same products. All MLPs have the exact
GELU, as the peers ship (`model.encoder.activation=gelu` here; the default is the tanh form of the
released models).

Without a word behind its name a contestant runs in fp32. *medium* has fp32 tensors and lets torch
round products to bf16, which it does on processors with tiles (AMX) alone; *bf16-mixed* is
autocast, *bf16-true* has parameters and inputs in bf16; *compile* is torch.compile of the whole
model (`compile=whole` of `train.py`), *regions* what `compile=true` compiles of this project's
(latent blocks and decoder), *key=value* an option of its attention.
"""  # noqa: E501, rows of a table

HOW_TO_READ = """## How to read the tables

**Contestants.** {names}.

**Bars.** *Products alone* is what would be reached if this project's step consisted of its matrix
products and attention kernels only, each at the pace that it has when it runs alone, over and over:
norms, activations, residuals, memory and Python would take no time. *Operators alone* is what would
be reached if every operator of the step that computes or moves something ran at that pace, with
nothing between them: the limit of any step made of these operators one after the other, below which
only fusing them (*compile*) goes; the results count the calls that cannot run alone (`left_out`),
which take no time. The *roof* is what would be reached if every matrix product that no exact
rewriting takes away (projections of latents, their attention and MLPs, the decoder) ran at the
measured peak and all else took no time; for the latent layers it is the rate of linear layers one
after the other, whose weights come from memory (*layers*). Below the bars stands what that leaves
each configuration.

A bar of a compiled step counts the peers' compiled steps as well, in the configurations where those
were measured: their rows are in the tables.

**The forms of attention.** Milliseconds of one block, attention and MLP, in each form that computes
the same, and in bold the form that `kernel=auto` took when they were recorded; *bf16* is autocast.
*sdpa* and *dense* make keys and values; *folded* and *separable* do not.

**What each trick pays.** The first row of a table is this project as it is; each other row has one
thing changed. *kernel=…* is another form of an attention. *without=sharing* makes the first queries
for each example; *cache* computes position codes in every step; *onednn* has all products of fp32
made by MKL, as torch does by itself (nothing changes where MKL is the quicker one), *batches* those
of attention, and the gradients of weights by oneDNN from copies; *blocks* leaves attention that is
not structured to torch's kernel. *recompute=always* computes the results of norms and activations
again in the backward pass, *never* keeps them; without the word those of large tensors alone are
computed again. *encoder.activation=gelu_tanh* is the tanh form of the GELU. *measured=again* has
nothing changed: rows that are as close to the first one as this one differ by no more than two
processes of the same do, which can be a tenth of the time.

**In train.py.** *before* is another commit of this project. The optimiser steps all parameters in
one kernel; *foreach* does it an operation at a time, *loop* a parameter at a time.

**The loader.** Examples a second, on one thread a process. *Plain* is what one writes with
torchvision, soundfile and a DataLoader: read, decode, the same transforms, pad. *Decoding* reads
files every epoch, *kept* keeps them decoded (`data.cache_gib`; texts are never kept, they are quick
to encode). *First* is an epoch from nothing, the data set made, the workers started, all examples
decoded; the others are later epochs. The command makes photographs and shards.
"""


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("results", nargs="*", type=Path, help="default: benchmarks/results")
    options.add_argument("--out", type=Path, default=PROJECT / "docs", metavar="DIR")
    arguments = options.parse_args()
    files = arguments.results or sorted(RESULTS.glob("*/*.json"))
    if not files:
        options.error("there are no results: python -m benchmarks.run writes some")
    written = write_page(
        [json.loads(path.read_text(encoding="utf-8")) for path in files], arguments.out
    )
    print(f"written: {written.name}")


def write_page(found: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write performance.md and its plots into `folder`.

    Args:
        found: what the commands wrote, each with its "kind" and "machine".
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    names = ", ".join(f"`{name}` is {library.title}" for name, library in LIBRARIES.items())
    parts = [INTRODUCTION, HOW_TO_READ.format(names=names)]
    for device in ("cpu", "cuda"):
        here = [result for result in found if result["machine"]["device"] == device]
        machines = dict.fromkeys(title(result["machine"]) for result in here)
        for machine in machines:
            results = {r["kind"]: r for r in here if title(r["machine"]) == machine}
            parts += _machine(results, machine, folder)
        if not machines:
            parts.append(UNMEASURED.format(device))
    path = folder / "performance.md"
    path.write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")
    return path


def _machine(results: Results, machine: str, folder: Path) -> list[str]:
    device = next(iter(results.values()))["machine"]["device"]
    where = device.upper().replace("CUDA", "GPU")
    parts = [f"## On a {where}: {machine}", "", _described(results), ""]
    if {"peers", "gpu"} & set(results):
        parts += [_bars(results, device)]
    if "peers" in results:
        parts += [_rooflines(results, device), _peers(results["peers"])]
    if "gpu" in results:
        sections = results["gpu"]["sections"].items()
        parts += [f"### {name}\n\n{plain(rows)}\n" for name, rows in sections]
    if "cost" in results:
        parts += ["### The forms of attention\n", costs(results["cost"]["cases"])]
    if "scaling" in results:
        parts += [_scaling(results["scaling"], slug(machine), folder)]
    if "ablations" in results:
        parts += [_ablations(results["ablations"], slug(machine), folder)]
    if "training" in results:
        parts += [_training(results["training"])]
    if "data" in results:
        parts += ["### The loader\n", *(f"{one}\n" for one in loading(results["data"]["cases"]))]
    return parts


def _described(results: Results) -> str:
    described = next(iter(results.values()))["machine"]
    peaks: dict[str, float] = {}
    for result in results.values():
        for name, rate in result["machine"].get("peaks", {}).items():
            peaks[name] = max(rate, peaks.get(name, 0.0))
    versions = {k: v for r in results.values() for k, v in r["machine"]["versions"].items()}
    threads = max(result["machine"]["threads"] for result in results.values())
    lines = [f"- {described['cores']} cores, {threads} threads"]
    if "accelerator" in described:
        lines = [f"- {described['accelerator']}"]
    if peaks:
        rates = ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in peaks.items())
        lines.append(f"- matrix products: {rates}")
    lines.append(
        f"- Python {described['python']}, "
        + ", ".join(f"{k} {v}" for k, v in sorted(versions.items()) if k != "perceiver-multimodal")
    )
    lines_of = [line for r in results.values() for line in r["command"].splitlines()]
    commands = "\n".join(dict.fromkeys(lines_of))
    return "\n".join(lines) + f"\n\n```bash\n{commands}\n```"


def _bars(results: Results, device: str) -> str:
    """Every promise beside what was reached, and what the machine leaves room for."""
    rows = []
    for bar in BARS:
        if bar.device != device:
            continue
        value, *bounds = evaluate(bar, results)
        sign = "≤" if bar.at_most else "≥"
        reached = "not measured" if value is None else f"{value:.3g}{bar.unit}"
        verdict = "–" if value is None else ("yes" if bar.is_met(value) else "**no**")
        shown = ["–" if bound is None else f"{bound:.3g}{bar.unit}" for bound in bounds]
        rows.append([bar.what, f"{sign} {bar.target:.3g}{bar.unit}", reached, *shown, verdict])
    head = ["", "bar", "reached", "products alone", "operators alone", "roof", "met"]
    return f"### Bars\n\n{table(head, rows)}\n"


def _rooflines(results: Results, device: str) -> str:
    """What the machine leaves room for, and what missed bars lack."""
    lines = []
    for name, found in results["peers"]["configurations"].items():
        with contextlib.suppress(KeyError):
            lines.append(f"- {roofline(name, found)}")
    missed = [line for bar in BARS if bar.device == device and (line := shortfall(bar, results))]
    if missed:
        lines += ["", "Missed, as parts of what this project's step takes:", ""]
        lines += [f"- {line}" for line in missed]
    return "\n".join([*lines, ""])


def _peers(result: Mapping[str, Any]) -> str:
    parts = ["### Beside other Perceivers\n"]
    for name, found in result["configurations"].items():
        parts += [_sizes(found), comparison(name, found)]
    return "\n".join(parts)


def _sizes(found: Mapping[str, Any]) -> str:
    from benchmarks.configurations import Configuration

    sizes = Configuration.from_json(found["sizes"])
    latents = f"{sizes.num_latents} × {sizes.latent_dim} latents"
    layers = f"{sizes.num_blocks} × {sizes.num_layers} layers, {sizes.num_heads} heads"
    read = f"M = {sizes.num_tokens:,}, C = {sizes.token_dim}, qk, v = {sizes.cross_widths}, "
    widening = f"widening {sizes.widening}, batch {sizes.batch}"
    return f"{read if sizes.inputs else ''}{latents}, {layers}, {widening}:\n"


def _scaling(result: Mapping[str, Any], machine: str, folder: Path) -> str:
    parts = ["### Scaling\n"]
    for name, axis in result["axes"].items():
        image = f"images/scaling-{name}-{machine}.svg"
        scaling_curves(axis, folder / image)
        labels = list(dict.fromkeys(w for f in axis["points"].values() for w in f["contestants"]))
        rows = []
        for label in labels:
            for step in ("forward", "train"):
                slopes = [_slope(axis, label, step, what) for what in ("seconds", "memory")]
                rows.append([f"{label}, {NAMES[step]}", *slopes])
        least = axis["fitted_from"]
        fitted = f", fitted from {least:,}" if least else ""
        parts.append(f"![{axis['title']}]({image})\n")
        parts.append(table([f"exponent{fitted}", "time", "memory"], rows) + "\n")
        if name == "tokens":
            parts.append(_large(axis))
    return "\n".join(parts)


def _slope(axis: Mapping[str, Any], label: str, step: str, what: str) -> str:
    try:
        return f"{exponent(curve(axis, label, step, what), axis['fitted_from']):.2f}"
    except ValueError:
        return "–"


def _large(axis: Mapping[str, Any]) -> str:
    """The sizes that no other implementation reaches, with the whole process's memory."""
    rows = []
    for size, found in axis["points"].items():
        for step, total in found["contestants"].get("ours", {}).get("total_memory", {}).items():
            if int(size) >= 900_000:
                taken = found["contestants"]["ours"]["seconds"][step]["median"]
                rows.append(
                    [f"{int(size):,} tokens, {NAMES[step]}", milliseconds(taken), mebibytes(total)]
                )
    return table(["this project", "ms", "whole process, MiB"], rows) + "\n" if rows else ""


def _ablations(result: Mapping[str, Any], machine: str, folder: Path) -> str:
    parts = ["### What each trick pays\n"]
    for name, found in result["configurations"].items():
        image = f"images/ablation-{name}-{machine}.svg"
        ablation_bars(found, folder / image)
        parts += [comparison(name, found), f"![{found['title']}]({image})\n"]
    return "\n".join(parts)


def _training(result: Mapping[str, Any]) -> str:
    parts = ["### In `python train.py`\n"]
    for job, variants in result["jobs"].items():
        base = next(iter(variants.values()))["median"]
        rows = [
            [
                name,
                f"{found['median']:,.0f}",
                spread(found),
                f"{found['median'] / base:.2f} ×",
            ]
            for name, found in variants.items()
        ]
        parts.append(table([f"{job} job", "examples/s", "spread", "of the first"], rows) + "\n")
    for job, variants in result.get("accuracy", {}).items():
        rows = [
            [name, f"{100 * mean(values):.2f} %", *(f"{100 * value:.2f} %" for value in values)]
            for name, values in variants.items()
        ]
        if rows:
            seeds = ["mean", *(f"seed {seed}" for seed in range(max(map(len, rows)) - 2))]
            rows = [row + [""] * (1 + len(seeds) - len(row)) for row in rows]
            parts.append(table([f"{job} job, accuracy on the test set", *seeds], rows) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    main()
