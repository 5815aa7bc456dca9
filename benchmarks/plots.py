"""The plots of the performance page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

from benchmarks.scaling import curve
from benchmarks.tables import NAMES

matplotlib.use("Agg")
matplotlib.rcParams |= {"svg.hashsalt": "perceiver", "svg.fonttype": "none", "font.size": 9}

from matplotlib import pyplot as plt  # noqa: E402

STYLES = {"forward": "--", "train": "-"}
LABELS = {"seconds": ("time, s", 1.0), "memory": ("memory of a step, MiB", 2.0**20)}


def scaling_curves(axis: Mapping[str, Any], path: Path) -> None:
    """Time and memory against one size, on logarithmic axes, a line a contestant and step."""
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    labels = list(dict.fromkeys(w for f in axis["points"].values() for w in f["contestants"]))
    for panel, (what, (title, unit)) in zip(panels, LABELS.items(), strict=True):
        for index, label in enumerate(labels):
            for step, style in STYLES.items():
                points = curve(axis, label, step, what)
                if points:
                    values = [value / unit for value in points.values()]
                    name = f"{label}, {NAMES[step]}"
                    panel.plot([*points], values, style, marker=".", color=f"C{index}", label=name)
        panel.set(xscale="log", yscale="log", xlabel=axis["title"], ylabel=title)
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=7)
    _save(figure, path)


def ablation_bars(found: Mapping[str, Any], path: Path) -> None:
    """The training step of each variant, in milliseconds, the first one on top."""
    rows = {
        label: entry["seconds"]["train"]["median"] * 1e3
        for label, entry in found["contestants"].items()
        if "seconds" in entry
    }
    figure, panel = plt.subplots(figsize=(8, 0.6 + 0.28 * len(rows)), layout="constrained")
    drawn = panel.barh([*rows], [*rows.values()], color=["C0", *["C7"] * (len(rows) - 1)])
    panel.bar_label(drawn, fmt="%.0f", padding=3)
    panel.invert_yaxis()
    panel.set(xlabel="training step, ms")
    panel.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
