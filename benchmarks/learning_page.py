"""docs/learning.md from what benchmarks.learning measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib

from benchmarks.contestants import PROJECT
from benchmarks.machine import title
from benchmarks.tables import table

matplotlib.use("Agg")
matplotlib.rcParams |= {"svg.hashsalt": "perceiver", "svg.fonttype": "none", "font.size": 9}

from matplotlib import pyplot as plt  # noqa: E402

DOCS = PROJECT / "docs"
_HEAD = """# What the defaults learn

Each job is trained by `train.py` with nothing chosen but the data, with three seeds, and tested
once on the split that is held out. Beside it stands what a user would write instead in some ten
lines (`benchmarks/simple.py`), on the same split. Accuracy is in per cent; MAE is the mean absolute
error in the target's own unit, where less is better. Nothing was chosen by a test. The simple
models need no validation, and learn from its rows as well. On tables they are better.
"""


def write_page(results: Mapping[str, Any], docs: Path = DOCS) -> None:
    """Write the page and its picture of the validation curves."""
    rows = [_row(found) for found in results["jobs"].values()]
    heading = ["job", "metric", "instead", "its score", "s", "train.py", "± over seeds", "s"]
    heading += ["parameters", "overrides"]
    commands = dict.fromkeys(found["command"] for found in results["jobs"].values())
    lines = [
        _HEAD,
        f"Measured on {title(results['machine'])}, {results['machine']['threads']} threads:\n",
        table(heading, rows),
        "\n![validation curves](images/learning.svg)\n",
        "\nThe commands that measured it:\n",
        "```bash",
        *commands,
        "```",
    ]
    (docs / "learning.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _curves(results["jobs"], docs / "images" / "learning.svg")


def _row(found: Mapping[str, Any]) -> list[str]:
    scale, digits = (100, 1) if found["metric"] == "acc" else (1, 1)
    scores = [scale * run["score"] for run in found["runs"]]
    alternative = found["simple"]
    spread = f"{stdev(scores):.{digits}f}" if len(scores) > 1 else "–"
    return [
        found["title"],
        "accuracy" if found["metric"] == "acc" else "MAE",
        alternative["what"],
        f"{scale * alternative['score']:.{digits}f}",
        f"{alternative['seconds']:.0f}",
        f"**{mean(scores):.{digits}f}**",
        spread,
        f"{mean(run['seconds'] for run in found['runs']):.0f}",
        f"{found['runs'][0]['parameters']:,}",
        " ".join(f"`{word}`" for word in found["overrides"]),
    ]


def _curves(jobs: Mapping[str, Any], path: Path) -> None:
    """The validated metric of each epoch, a panel per job and a line per seed."""
    columns = 4
    lines = -(-len(jobs) // columns)
    figure, panels = plt.subplots(
        lines, columns, figsize=(2.4 * columns, 2.0 * lines), layout="constrained", squeeze=False
    )
    for panel in panels.flat[len(jobs) :]:
        panel.set_visible(False)
    for panel, (name, found) in zip(panels.flat, jobs.items(), strict=False):
        for run in found["runs"]:
            panel.plot(range(1, len(run["curve"]) + 1), run["curve"], label=f"seed {run['seed']}")
        panel.set(title=name, xlabel="epoch", ylabel=f"val/{found['metric']}")
        panel.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
