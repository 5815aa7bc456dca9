"""Results as markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

NAMES = {
    "forward": "forward",
    "train": "training step",
    "forward, bf16": "forward, bf16",
    "train, bf16": "training step, bf16",
}
STAGES = ["read", "bare decoder", "decode", "transform", "collate", "all"]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table; all columns but the first are aligned to the right."""
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.3g}"


def mebibytes(count: float) -> str:
    return f"{count / 2**20:,.0f}" if count >= 10 * 2**20 else f"{count / 2**20:.1f}"


def spread(summary: dict[str, float]) -> str:
    """Half the distance of the quartiles, in per cent of the median."""
    return f"{50 * (summary['high'] - summary['low']) / summary['median']:.0f} %"


def utilisation(found: dict[str, Any], label: str, step: str) -> float:
    """The dense definition's operations, over time, over the measured peak of the precision."""
    seconds = found["contestants"][label]["seconds"][step]["median"]
    peak = found["peaks"]["bf16" if "bf16" in label or "medium" in label else "fp32"]
    return found["flops"][step] / seconds / peak


def comparison(name: str, found: dict[str, Any]) -> str:
    """One configuration: a row a contestant."""
    steps = list(found["flops"])
    head = [
        "",
        *(f"{NAMES[step]}, ms" for step in steps),
        "its spread",
        "of the peak",
        "memory, MiB",
        "resident, MiB",
    ]
    head += ["parameters", "distance"]
    rows, notes = [], []
    if found.get("freed_memory") != "kept":
        notes.append("an older record: freed memory went back to the system")
    for label, entry in found["contestants"].items():
        if "seconds" not in entry:
            notes.append(f"{label}: {entry.get('absent') or entry.get('error')}")
            continue
        if "compile" in label or "regions" in label:
            notes.append(f"{label}: {entry['first_seconds']:.0f} s until all steps have run once")
        last = steps[-1]
        times = [entry["seconds"][step] for step in steps]
        rows.append(
            [
                label,
                *(milliseconds(time["median"]) for time in times),
                spread(times[-1]),
                f"{utilisation(found, label, last):.0%}",
                mebibytes(entry["memory"][last]),
                mebibytes(entry["resident"][last]) if entry["resident"] else "–",
                f"{entry['parameters']:,}",
                f"{entry['distance']:.0e}" if "distance" in entry else "–",
            ]
        )
    work = ", ".join(f"{NAMES[step]} {found['flops'][step] / 1e9:,.0f} GFLOP" for step in steps)
    lines = [f"**{name}**: {found['title']} ({work})", "", table(head, rows)]
    if notes:
        lines += ["", *(f"- {note}" for note in notes)]
    return "\n".join([*lines, ""])


def loading(cases: Mapping[str, Any]) -> list[str]:
    """Two tables of examples a second: of each stage, and of whole loaders.

    Args:
        cases: kind of data → {"stages": …, "workers": …}, as `benchmarks.data` finds them.
    """
    names = list(dict.fromkeys(name for found in cases.values() for name in found["stages"]))
    names.sort(key=STAGES.index)
    stages = []
    for case, found in cases.items():
        rates = found["stages"]
        cells = [f"{rates[name]:,.0f}" if name in rates else "" for name in names]
        if "bare decoder" in rates:
            cells[names.index("decode")] = _beside(rates["decode"], rates["bare decoder"])
        stages.append([case, *cells])
    loaders = []
    for case, found in cases.items():
        for count, rates in found["workers"].items():
            plain, first = rates["plain"], rates["plain, first"]
            later = [_beside(rates[name], plain) for name in ("decoding", "kept")]
            kept = _beside(rates["kept, first"], first)
            loaders.append([case, count, f"{plain:,.0f}", *later, f"{first:,.0f}", kept])
    head = ["workers", "plain", "decoding", "kept", "plain, first", "kept, first"]
    return [
        table(["a stage (× the bare decoder)", *names], stages),
        table(["a loader (× plain)", *head], loaders),
    ]


def costs(cases: Mapping[str, Any]) -> str:
    """Milliseconds of each form of some attentions, the chosen one in bold.

    Args:
        cases: name → step → {"seconds": of each form, "chosen": a form}, from `benchmarks.cost`.
    """
    forms = list(
        dict.fromkeys(
            form
            for steps in cases.values()
            for found in steps.values()
            for form in found["seconds"]
        )
    )
    rows = []
    for name, steps in cases.items():
        for step, found in steps.items():
            cells = {form: milliseconds(seconds) for form, seconds in found["seconds"].items()}
            cells[found["chosen"]] = f"**{cells[found['chosen']]}**"
            rows.append([f"{name}, {NAMES[step]}", *(cells.get(form, "") for form in forms)])
    return table(["", *forms], rows) + "\n"


FORMATS: dict[str, Callable[[float], str]] = {
    "_seconds": lambda x: f"{1e3 * x:.3g} ms",
    "bytes": lambda x: f"{mebibytes(x)} MiB",
    "operations_per_second": lambda x: f"{x / 1e12:.3g} TFLOP/s",
    "utilisation": lambda x: f"{100 * x:.0f} %",
    "error": lambda x: f"{x:.1e}",
    "examples_per_second": lambda x: f"{x:,.0f}",
}


def _cell(key: str, value: object) -> str:
    if isinstance(value, float):
        for ending, form in FORMATS.items():
            if key.endswith(ending):
                return form(value)
    return str(value)


def plain(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table of rows with keys for columns; what failed says so in its last column."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(key, row[key]) if key in row else "" for key in keys] for row in rows]
    return table([key.replace("_", " ") for key in keys], cells)


def _beside(value: float, other: float) -> str:
    return f"{value:,.0f} ({value / other:.2f} ×)"
