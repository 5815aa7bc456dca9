"""Everything that only a GPU can tell, in less than eight minutes: python -m benchmarks.gpu

Prints markdown, and writes the same for the page: the forms of the first cross-attend against SDPA,
the ImageNet training step as a share of the measured bf16 matmul peak (eager, compiled by region,
in float8, whole, with CUDA graphs), and what products in fp8 take alone. `--device cpu --quick` is
a rehearsal at sizes that mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.bars import GPU_STEPS
from benchmarks.configurations import CONFIGURATIONS, Configuration, Grid
from benchmarks.contestants.ours import build
from benchmarks.machine import describe, place, title
from benchmarks.peak import SIDE, matmul_rates
from benchmarks.run import command, write
from benchmarks.tables import plain
from runner.speed import compile_model, use_float8

SECONDS = 360  # after which what is left is skipped; compiling can take minutes more
FORMS = ("sdpa", "folded", "separable")
# Options of train.py → what it compiles, and whether layers multiply in eight bits.
WAYS: dict[str, tuple[bool | str, bool]] = {
    "eager": (False, False),
    "compile=true": (True, False),
    "compile=true float8=true": (True, True),
    "compile=whole": ("whole", False),
    "compile=graphs": ("graphs", False),
}
# Compiling a model whole that applies 48 layers takes longer than the rest of the measurements.
STEPS = {"imagenet_8x6": tuple(WAYS)[:3], "imagenet_1x6": tuple(WAYS)}


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where to measure, and how large.

    Args:
        device: "cuda" or "cpu".
        is_quick: rehearse at small sizes.
        deadline: when to stop, by `time.perf_counter`.
    """

    device: str
    is_quick: bool
    deadline: float

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def measure(self, step: Callable[[], object], rounds: int = 5) -> tuple[float, float]:
        """(median seconds, bytes at the highest above those before) of a step, warmed up.

        Bytes are those that are asked for in the steps measured: a CUDA graph asks for none.
        """
        for _ in range(3):
            step()
        self.wait()
        before = 0
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        times = []
        for _ in range(1 if self.is_quick else rounds):
            self.wait()
            start = time.perf_counter()
            step()
            self.wait()
            times.append(time.perf_counter() - start)
        peak = torch.cuda.max_memory_allocated() - before if self.device == "cuda" else 0
        return statistics.median(times), float(peak)

    def sizes(self, name: str, batch: int) -> Configuration:
        """A shipped configuration with a batch for a GPU, or small."""
        sizes = CONFIGURATIONS[name]
        if not self.is_quick:
            return dataclasses.replace(sizes, batch=batch)
        image = {"image": Grid((13, 11), 3, 5)}
        return dataclasses.replace(
            sizes, inputs=image, batch=2, num_latents=16, latent_dim=64, cross_qk_dim=None,
            cross_v_dim=None, num_blocks=min(2, sizes.num_blocks),
            decoder=sizes.decoder and dataclasses.replace(sizes.decoder, dim=64),
        )  # fmt: skip

    def task(self, sizes: Configuration, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
        task = build(sizes, **options)
        inputs = {name: x.to(self.device) for name, x in task.arguments["inputs"].items()}
        return task.module.to(self.device), {"inputs": inputs}

    def autocast(self, precision: str) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.device, torch.bfloat16, enabled=precision == "bf16")


def peaks(machine: Machine) -> Iterator[dict[str, Any]]:
    side = 256 if machine.is_quick else SIDE[machine.device]
    for precision in ("fp32", "bf16"):
        yield {
            "precision": precision,
            "operations_per_second": max(matmul_rates(precision, machine.device, side)),
        }


def cross_attends(machine: Machine) -> Iterator[dict[str, Any]]:
    """Forward and training step of the paper's first cross-attend, a row a form."""
    for name in ("cross_261", "cross_1024"):
        for batch in (1, 32):
            sizes = machine.sizes(name, batch)
            exact: Tensor | None = None
            for precision in ("fp32", "bf16"):
                for form in FORMS:
                    row = {"name": name, "batch": sizes.batch, "precision": precision, "form": form}
                    yield row | _attempt(
                        machine,
                        lambda s=sizes, p=precision, f=form, e=exact: _cross(machine, s, p, f, e),
                    )
                    if exact is None:
                        exact = _attempt(machine, lambda s=sizes: _exact(machine, s)).get("exact")


def _exact(machine: Machine, sizes: Configuration) -> dict[str, Tensor]:
    module, inputs = machine.task(sizes, **{"cross_attention.kernel": "sdpa"})
    with torch.no_grad():
        return {"exact": module(**inputs)}


def _cross(
    machine: Machine, sizes: Configuration, precision: str, form: str, exact: Tensor | None
) -> dict[str, Any]:
    module, inputs = machine.task(sizes, **{"cross_attention.kernel": form})

    def forward() -> Tensor:
        with machine.autocast(precision):
            return module(**inputs)

    def train() -> None:
        module.zero_grad()
        forward().float().square().mean().backward()

    with torch.no_grad():
        found = forward().float()
        forward_seconds, _ = machine.measure(forward)
    seconds, memory = machine.measure(train)
    row = {"forward_seconds": forward_seconds, "train_seconds": seconds, "bytes": memory}
    if exact is not None:
        row["error"] = float((found - exact).abs().max() / exact.abs().max())
    return row


def imagenet_steps(machine: Machine, peak: float) -> Iterator[dict[str, Any]]:
    """The whole training step with AdamW, a row a way to run it."""
    for name, ways in STEPS.items():
        sizes = machine.sizes(name, 32)
        for way in ways[:1] if machine.is_quick else ways:
            row = {"name": name, "batch": sizes.batch, "way": way}
            yield row | _attempt(machine, lambda s=sizes, w=way: _imagenet(machine, s, w, peak))


def _imagenet(machine: Machine, sizes: Configuration, way: str, peak: float) -> dict[str, Any]:
    torch._dynamo.reset()
    module, inputs = machine.task(sizes)
    target = torch.zeros(sizes.batch, dtype=torch.long, device=machine.device)
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
    what, is_float8 = WAYS[way]
    if is_float8:
        use_float8(module, emulated=machine.device == "cpu")
    if what:
        compile_model(module, what)

    def step() -> None:
        optimiser.zero_grad()
        with machine.autocast("bf16"):
            logits = module(**inputs).flatten(0, 1)
            loss = nn.functional.cross_entropy(logits.float(), target)
        loss.backward()
        optimiser.step()

    start = time.perf_counter()
    step()
    machine.wait()
    first = time.perf_counter() - start
    seconds, memory = machine.measure(step)
    return ({} if what == "graphs" else {"bytes": memory}) | {
        "first_seconds": first,
        "train_seconds": seconds,
        "examples_per_second": sizes.batch / seconds,
        # What no exact rewriting takes away, and what the dense definition would do.
        "utilisation": sizes.irreducible_flops("train") / seconds / peak,
        "dense_utilisation": sizes.flops("train") / seconds / peak,
    }


def fp8(machine: Machine) -> Iterator[dict[str, Any]]:
    """The products of a latent layer in bf16, and in fp8 with and without the conversion."""
    rows, width = (64, 64) if machine.is_quick else (32 * 512, 1024)
    left = torch.randn(rows, width, device=machine.device, dtype=torch.bfloat16)
    right = torch.randn(width, width, device=machine.device, dtype=torch.bfloat16)
    exact = left.float() @ right.float()
    scale = torch.ones((), device=machine.device)
    left8 = left.to(torch.float8_e4m3fn)
    right8 = right.mT.contiguous().to(torch.float8_e4m3fn).mT

    def converted() -> Tensor:
        return left.clamp(-448, 448).to(torch.float8_e4m3fn)

    def multiply(x: Tensor) -> Tensor:
        return torch._scaled_mm(x, right8, scale, scale, out_dtype=torch.bfloat16)

    ways: dict[str, Callable[[], Tensor]] = {
        "bf16": lambda: left @ right,
        "fp8": lambda: multiply(left8),
        "fp8, converting one side": lambda: multiply(converted()),
    }
    for way, product in ways.items():
        yield {"way": way} | _attempt(machine, lambda p=product: _product(machine, p, exact))


def _product(machine: Machine, product: Callable[[], Tensor], exact: Tensor) -> dict[str, Any]:
    error = float((product().float() - exact).norm() / exact.norm())
    seconds, _ = machine.measure(lambda: [product() for _ in range(10)])
    operations = 2 * exact.numel() * exact.shape[1]
    return {"operations_per_second": 10 * operations / seconds, "error": error}


def _attempt(machine: Machine, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was measured; or why not, so that one failure does not cost the rest of the run."""
    if time.perf_counter() > machine.deadline:
        return {"failed": "out of time"}
    try:
        return measure()
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"}
    finally:
        if machine.device == "cuda":
            torch.cuda.empty_cache()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="small sizes: a rehearsal")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="where results go; default: results, in the folder of this machine, none with --quick",
    )
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here: rehearse with --device cpu --quick")
    machine = Machine(options.device, options.quick, time.perf_counter() + SECONDS)
    described = describe(options.device, libraries=["torch"])
    sections: dict[str, list[dict[str, Any]]] = {}
    print(f"# {title(described)}, torch {torch.__version__}", flush=True)
    measures: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "Matmul peaks": lambda: peaks(machine),
        "First cross-attend": lambda: cross_attends(machine),
        "fp8": lambda: fp8(machine),
        GPU_STEPS: lambda: imagenet_steps(
            machine, sections["Matmul peaks"][1]["operations_per_second"]
        ),
    }
    path = options.json or (None if options.quick else place("gpu", options.device))
    told = {"kind": "gpu", "command": command(), "machine": described, "sections": sections}
    for name, measure in measures.items():
        sections[name] = []
        for row in measure():  # each is written at once: a run that is cut short keeps them
            sections[name].append(row)
            if path:
                write(path, told)
        print(f"\n## {name}\n\n{plain(sections[name])}", flush=True)
    if path:
        print(f"\nwritten: {path.name}")


if __name__ == "__main__":
    main()
