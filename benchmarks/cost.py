"""Time every form of some attentions, to hold what auto counts to: python -m benchmarks.cost

python -m benchmarks.cost --only "small image" decoder --rounds 15
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import describe, place, record
from benchmarks.run import command, write
from benchmarks.tables import costs
from perceiver.attention import Attention
from perceiver.attention.kernels import select_kernel
from perceiver.models.blocks import AttentionBlock
from perceiver.types import ByteArray, Segment

FORMS = ("sdpa", "dense", "folded", "separable")
SELF_FORMS = ("sdpa", "dense")
# Step → is it training, is it in bf16 (autocast).
STEPS = {
    "forward": (False, False),
    "train": (True, False),
    "forward, bf16": (False, True),
    "train, bf16": (True, True),
}


def image(
    size: tuple[int, int],
    *,
    content: int = 3,
    bands: int = 64,
    batch: int = 1,
    learns: bool = False,
) -> Segment:
    """Pixels, or the features of a stem that learns, with Fourier codes of both axes."""
    codes = tuple(torch.randn(side, 2 * bands + 1) for side in size)
    values = torch.randn(batch, size[0] * size[1], content, requires_grad=learns)
    return Segment(values, codes, shape=size)


def sequence(length: int, content: int, *, code: int = 0, batch: int = 1) -> Segment:
    """Embeddings that learn, with a code of the place or without."""
    codes = (torch.randn(length, code),) if code else ()
    return Segment(torch.randn(batch, length, content, requires_grad=True), codes)


@dataclass(frozen=True)
class Case:
    """An attention that somebody runs.

    Args:
        segment: makes what is attended to; None = the latents themselves.
        latents: (batch, number, width); a batch of 1 is the learned array itself.
        heads: how many.
        widths: of all queries and of all values.
    """

    segment: Callable[[], Segment] | None
    latents: tuple[int, int, int]
    heads: int
    widths: tuple[int, int]

    @property
    def forms(self) -> tuple[str, ...]:
        return FORMS if self.segment else SELF_FORMS

    def build(self) -> tuple[AttentionBlock, Tensor, ByteArray | None]:
        """The block, the latents and what they attend to."""
        segment = self.segment() if self.segment else None
        qk, v = self.widths
        attention = partial(Attention, num_heads=self.heads, qk_dim=qk, v_dim=v)
        block = AttentionBlock(
            self.latents[2], segment.channels if segment else None, attention=attention
        )
        inputs = ByteArray({"x": segment}) if segment else None
        return block, torch.randn(self.latents), inputs


CASES = {
    "ImageNet": Case(lambda: image((224, 224)), (1, 512, 1024), 1, (261, 261)),
    "ImageNet, wide keys": Case(lambda: image((224, 224)), (1, 512, 1024), 1, (1024, 1024)),
    "ImageNet, eight heads": Case(lambda: image((112, 112)), (1, 512, 1024), 8, (264, 264)),
    "convolutional stem": Case(
        lambda: image((56, 56), content=64, batch=4, learns=True), (1, 512, 1024), 1, (322, 322)
    ),
    "small image": Case(lambda: image((32, 32), batch=16), (1, 128, 256), 1, (261, 261)),
    "bytes": Case(lambda: sequence(2048, 768, batch=2), (1, 256, 1280), 8, (256, 1280)),
    "decoder": Case(lambda: sequence(512, 1024, batch=8), (1, 1, 1024), 1, (1024, 1024)),
    "a few tokens": Case(lambda: sequence(16, 32, code=17, batch=64), (1, 24, 96), 1, (96, 96)),
    "ImageNet, latents": Case(None, (1, 512, 1024), 8, (1024, 1024)),
    "small image, latents": Case(None, (16, 128, 256), 8, (256, 256)),
    "bytes, latents": Case(None, (2, 256, 1280), 8, (256, 1280)),
    "narrow heads, latents": Case(None, (64, 24, 96), 8, (96, 96)),
}


@contextmanager
def running(step: str) -> Iterator[None]:
    """Training or not, in bf16 or not."""
    is_training, is_half = STEPS[step]
    with (
        torch.set_grad_enabled(is_training),
        torch.autocast("cpu", torch.bfloat16, enabled=is_half),
    ):
        yield


def chosen(name: str, step: str) -> str:
    """The form that `kernel=auto` takes for a case."""
    block, latents, inputs = CASES[name].build()
    with running(step):
        context = latents if inputs is None else block.context(inputs)
        return select_kernel("auto", block.attention.problem(latents, context)).name


def measure(case: Case, rounds: int, steps: Sequence[str]) -> dict[str, dict[str, float]]:
    """Seconds of each form, by step; the forms take turns."""
    block, latents, inputs = case.build()
    latents.requires_grad_(inputs is None)
    found: dict[str, dict[str, float]] = {}
    for step in steps:
        is_training, _ = STEPS[step]
        times: dict[str, list[float]] = {form: [] for form in case.forms}
        for form in _turns(case.forms, rounds + 1):
            block.attention.kernel = form
            start = time.perf_counter()
            with running(step):
                out = block(latents, None if inputs is None else block.context(inputs))
            if is_training:
                out.sum().backward()
            times[form].append(time.perf_counter() - start)
        found[step] = {form: median(taken[1:]) for form, taken in times.items()}
    return found


def _turns(forms: tuple[str, ...], rounds: int) -> Iterator[str]:
    for number in range(rounds):
        first = number % len(forms)
        yield from (*forms[first:], *forms[:first])


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--only", nargs="+", choices=CASES, metavar="CASE")
    options.add_argument("--rounds", type=int, default=9, help="turns of every form")
    options.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), metavar="STEP")
    options.add_argument(
        "--add", action="store_true", help="keep what the file holds and is not measured again"
    )
    options.add_argument("--json", type=Path, metavar="FILE")
    arguments = options.parse_args()
    path = arguments.json or place("cost", "cpu")
    told = {"kind": "cost", "command": command(), "machine": describe("cpu", libraries=["torch"])}
    found: dict[str, dict[str, Any]] = {}
    if arguments.add and path.exists():
        before = record(path, "cost", "cpu")
        found = before["cases"]
        told["command"] = "\n".join([before["command"], told["command"]])
    for name in arguments.only or CASES:
        steps = measure(CASES[name], arguments.rounds, arguments.steps)
        found[name] = found.get(name, {}) | {
            step: {"seconds": seconds, "chosen": chosen(name, step)}
            for step, seconds in steps.items()
        }
        print(costs({name: found[name]}), flush=True)
    write(path, told | {"cases": found})
    print(f"written: {path.name}")


if __name__ == "__main__":
    main()
