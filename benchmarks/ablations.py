"""What each trick pays: this project with one thing changed at a time.

    python -m benchmarks.ablations
    python -m benchmarks.ablations --only cross_261

A row is a contestant as `benchmarks.run` takes it: with another kernel, without a trick, compiled,
in another precision. A new trick is a new word in the table below.
"""

from __future__ import annotations

from benchmarks.configurations import CONFIGURATIONS
from benchmarks.contestants import Contestant
from benchmarks.run import measure, parser

KERNELS = tuple(f"cross_attention.kernel={name}" for name in ("dense", "sdpa", "folded"))
LATENT_KERNELS = ("latent_attention.kernel=dense", "latent_attention.kernel=chunked")
COMPILED = ("compile", "latent_attention.kernel=sdpa+compile")
PRECISIONS = ("medium", "bf16-mixed", "bf16-true")
RECOMPUTED, NEVER = "recompute=always", "recompute=never"
SHARING, CACHE, BLOCKS = "without=sharing", "without=cache", "without=blocks"
LIBRARIES = ("without=onednn", "without=batches")
TANH = "encoder.activation=gelu_tanh"
AGAIN = "measured=again"

ABLATIONS: dict[str, tuple[str, ...]] = {
    "cross_261": (*KERNELS, CACHE, *LIBRARIES, *PRECISIONS),
    "cross_1024": (*KERNELS, *LIBRARIES),
    "imagenet_1x6": (
        *(*KERNELS[:2], LATENT_KERNELS[0], RECOMPUTED, CACHE, BLOCKS, *LIBRARIES, TANH),
        *(*COMPILED, "regions", *PRECISIONS),
    ),
    "small_image": (
        *(*KERNELS[:2], LATENT_KERNELS[0], SHARING, RECOMPUTED, CACHE, BLOCKS, *LIBRARIES, TANH),
        *("compile", "regions", *PRECISIONS),
    ),
    "bytes": (
        *(*KERNELS[:2], LATENT_KERNELS[0], SHARING, NEVER, BLOCKS, *LIBRARIES, TANH),
        *("compile", "regions", *PRECISIONS),
    ),
    "audio": (*KERNELS, CACHE, *LIBRARIES),
    "modalities": (*KERNELS[:2], SHARING, CACHE, *LIBRARIES, *PRECISIONS),
    "latents": (
        *(*LATENT_KERNELS, RECOMPUTED, BLOCKS, *LIBRARIES, TANH),
        *(*COMPILED, *PRECISIONS, "bf16-mixed+compile"),
    ),
}


def main() -> None:
    options = parser(__doc__)
    options.set_defaults(rounds=3)
    options.add_argument("--only", nargs="+", choices=ABLATIONS, metavar="CONFIGURATION")
    arguments = options.parse_args()
    chosen = {
        name: (
            CONFIGURATIONS[name],
            [Contestant.parse("+".join(["ours", *word])) for word in words(name)],
        )
        for name in arguments.only or ABLATIONS
    }
    try:
        measure(chosen, arguments, kind="ablations")
    except ValueError as error:
        options.exit(1, f"error: {error}\n")


def words(name: str) -> list[tuple[str, ...]]:
    """What is added to "ours" in each row of a configuration: nothing first, and nothing last."""
    return [(), *((word,) for word in (*ABLATIONS[name], AGAIN))]


if __name__ == "__main__":
    main()
