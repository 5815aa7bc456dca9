"""Time and memory against the sizes of the model: python -m benchmarks.scaling

    python -m benchmarks.scaling --axes tokens --contestants ours
    python -m benchmarks.scaling --device cuda

The axis `tokens` reads pictures of 10³ to 10⁶ pixels, and one of 10⁷ forward, into the paper's 512
latents of width 1,024. Peers stop where joined tokens, keys, values and scores outgrow a laptop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.configurations import CONFIGURATIONS, PAPER, Configuration, image, tiny
from benchmarks.driver import STEPS, Pool, compare
from benchmarks.run import command, contestants, described, destination, parser, write
from benchmarks.tables import comparison

DEFAULT = ("ours", "hf")
PEER_TOKENS = 300_000  # beyond which peers need more than 4 GiB for a training step
TRAINED_TOKENS = 2_000_000  # beyond which only the forward pass is measured


@dataclass(frozen=True)
class Axis:
    """One size that varies.

    Args:
        title: for plots.
        points: value → configuration.
        fitted_from: the least value that the exponent is fitted from.
    """

    title: str
    points: Mapping[int, Configuration]
    fitted_from: int = 0


def _read(side: int) -> Configuration:
    return image(f"{side} × {side} pixels", side, **PAPER, num_layers=0, tokens_given=True)


def _model(**sizes: Any) -> Configuration:
    base = {"batch": 1, "num_latents": 256, "latent_dim": 512, "num_layers": 6}
    return image(", ".join(f"{k} = {v}" for k, v in sizes.items()), 64, **base | sizes)


AXES = {
    "tokens": Axis(
        "tokens M",
        {side**2: _read(side) for side in (32, 64, 100, 178, 316, 562, 1000, 3163)},
        fitted_from=10_000,
    ),
    "latents": Axis("latents N", {n: _model(num_latents=n) for n in (64, 128, 256, 512, 1024)}),
    "layers": Axis("latent layers", {n: _model(num_layers=n) for n in (1, 2, 4, 8, 16)}),
    "batch": Axis(
        "batch",
        {n: replace(CONFIGURATIONS["small_image"], batch=n) for n in (1, 2, 4, 8, 16, 32)},
    ),
}


def exponent(points: Mapping[int, float], least: int = 0) -> float:
    """p of value ∝ size^p: the slope of a straight line through the logarithms.

    Args:
        points: size → value.
        least: smaller sizes are left out.

    Raises:
        ValueError: for fewer than two points.
    """
    pairs = [(math.log(x), math.log(y)) for x, y in points.items() if x >= least and y > 0]
    if len(pairs) < 2:
        raise ValueError(f"a slope needs two points, got {len(pairs)} from {least} on")
    mean_x, mean_y = (sum(axis) / len(pairs) for axis in zip(*pairs, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in pairs)
    return sum((x - mean_x) * (y - mean_y) for x, y in pairs) / spread


def curve(axis: Mapping[str, Any], label: str, step: str, what: str) -> dict[int, float]:
    """Size → seconds or bytes of a contestant, from the results of an axis.

    Args:
        axis: one axis of the results.
        label: the contestant.
        step: "forward" or "train".
        what: "seconds" or "memory".
    """
    values = {}
    for size, found in axis["points"].items():
        taken = found["contestants"].get(label, {}).get(what, {}).get(step)
        if taken is not None:
            values[int(size)] = taken["median"] if what == "seconds" else taken
    return values


def main() -> None:
    options = parser(__doc__)
    options.set_defaults(rounds=3)
    options.add_argument("--axes", nargs="+", choices=AXES, default=[*AXES], metavar="AXIS")
    options.add_argument("--contestants", nargs="+", default=DEFAULT, metavar="CONTESTANT")
    options.add_argument("--most", type=int, default=10**8, help="tokens; larger points are left")
    arguments = options.parse_args()
    try:
        who = contestants(arguments.contestants, None, False)
        path, before = destination("scaling", arguments)
    except ValueError as error:
        options.exit(1, f"error: {error}\n")
    commands = dict.fromkeys([*before.get("command", "").splitlines(), command()])
    results: dict[str, Any] = {"kind": "scaling", "command": "\n".join(commands)}
    results["axes"] = before.get("axes", {})
    pool = Pool(
        device=arguments.device,
        threads=arguments.threads,
        peak_side=64 if arguments.quick else None,
    )
    with pool:
        for name in arguments.axes:
            axis = AXES[name]
            points: dict[str, Any] = dict(results["axes"].get(name, {}).get("points", {}))
            results["axes"][name] = {
                "title": axis.title,
                "fitted_from": axis.fitted_from,
                "points": points,
            }
            for size, configuration in axis.points.items():
                if configuration.num_tokens > arguments.most:
                    continue
                found = points[str(size)] = _point(pool, configuration, who, arguments)
                print(comparison(f"{name} {size:,}", found), flush=True)
                results["machine"] = described(pool, arguments.threads, before)
                write(path, results)
    print(f"written: {path}")


def _point(pool: Pool, configuration: Configuration, who: Sequence[Any], arguments: Any) -> Any:
    is_small = configuration.num_tokens <= PEER_TOKENS
    return compare(
        pool,
        tiny(configuration) if arguments.quick else configuration,
        [w for w in who if is_small or w.library == "ours"],
        rounds=1 if arguments.quick else arguments.rounds,
        steps=STEPS if configuration.num_tokens <= TRAINED_TOKENS else ("forward",),
        turn_seconds=0.0 if arguments.quick else 0.5,
        seconds=arguments.seconds,
    )


if __name__ == "__main__":
    main()
