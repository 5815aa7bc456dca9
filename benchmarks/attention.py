"""The table of docs/attention.md from finished runs: python -m benchmarks.attention FOLDER…"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

PRESETS = Path(__file__).parents[1] / "conf" / "attention"
REFERENCE = "single_head"
GROUP = "attention@model."


@dataclass(frozen=True)
class Run:
    """What one run says of a preset.

    Args:
        preset: its name.
        place: "cross" or "latent".
        accuracy: on the test set, all modalities given.
    """

    preset: str
    place: str
    accuracy: float


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """The finished runs below some folders that chose an attention by name."""
    runs = []
    for path in sorted(file for folder in folders for file in folder.rglob("results.json")):
        overrides = OmegaConf.load(path.parent / ".hydra" / "overrides.yaml")
        chosen = [str(override) for override in overrides if str(override).startswith(GROUP)]
        if len(chosen) != 1:
            continue
        place, preset = chosen[0].removeprefix(GROUP).split("=")
        results = json.loads(path.read_text(encoding="utf-8"))
        runs.append(Run(preset, place.removesuffix("_attention"), results["test/acc"]))
    return runs


@cache
def described(preset: str) -> tuple[str, str]:
    """(what the preset's file says it is, its axes in short: score, position, pattern, …)."""
    text = (PRESETS / f"{preset}.yaml").read_text(encoding="utf-8")
    lines = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
    with initialize_config_dir(str(PRESETS.parent), version_base="1.3"):
        config = compose(f"attention/{preset}").attention
    axes = [config.score, config.position, config.pattern.replace("|", "or"), config.normaliser]
    return " ".join(lines), " · ".join([*axes, f"{config.heads}({config.num_heads})"])


def table(runs: Iterable[Run]) -> str:
    """A line a preset (and place), in Markdown; "–" where it was not run."""
    runs = list(runs)
    of = {preset: [run for run in runs if run.preset == preset] for preset in known_presets()}
    reference = [run.accuracy for run in of[REFERENCE] if run.place == "cross"]
    heading = ["preset", "what it is", "score · position · pattern · normaliser · heads", "as"]
    heading += ["accuracy, %", "to scaled dot"]
    lines = [f"| {' | '.join(heading)} |", "|---" * len(heading) + "|"]
    for preset, own in of.items():
        cells = [f"`{preset}`", *described(preset)]
        for run in own:
            points = f"{100 * (run.accuracy - reference[0]):+.1f}" if reference else "–"
            measured = [run.place, f"{100 * run.accuracy:.1f}", points]
            lines.append(f"| {' | '.join(cells + measured)} |")
        if not own:
            lines.append(f"| {' | '.join([*cells, '–', '–', '–'])} |")
    return "\n".join(lines)


def known_presets() -> list[str]:
    """The names in conf/attention, sorted."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def main(arguments: list[str]) -> str:
    """The table of the runs below the folders that are named.

    Raises:
        SystemExit: without folders, or if they hold no such run.
    """
    folders = [Path(argument) for argument in arguments]
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if not folders or missing:
        sys.exit(f"error: no folder {', '.join(missing) or 'is named'}; name those of runs")
    runs = find_runs(folders)
    if not runs:
        sys.exit(f"error: no finished run below {', '.join(arguments)} chose {GROUP}…=NAME")
    return table(runs)


if __name__ == "__main__":
    print(main(sys.argv[1:]))
