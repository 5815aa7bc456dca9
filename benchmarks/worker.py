"""One contestant's process: builds what it is told, steps when it is told, and else waits.

Run as a script by `benchmarks.driver`: one JSON object a line comes in on stdin, one goes out on
what was stdout.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def _load_this_package() -> None:
    """Make `benchmarks` this folder whatever else is called so, without the project on the path:
    a peer that is imported by the project's name must not be shadowed by it."""
    folder = Path(__file__).parent
    spec = spec_from_file_location(
        "benchmarks", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = sys.modules["benchmarks"] = module_from_spec(spec)
    spec.loader.exec_module(package)


_load_this_package()

from benchmarks.configurations import Configuration  # noqa: E402
from benchmarks.contestants import Contestant, NotApplicable, build, compiled  # noqa: E402
from benchmarks.floor import Call, alone, recorded  # noqa: E402
from benchmarks.memory import allocated, give_back, highest, rise  # noqa: E402
from benchmarks.peak import layer_rate, matmul_rates  # noqa: E402

FOLDERS = re.compile(r"(?<![\w.])(/[\w.+-]+)+/")  # results name no place of this machine
SAMPLES = 64  # output values that are compared between contestants


class Bench:
    """What the commands act on: a module and its batch, on a device, in a precision."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.step: Callable[[str], Tensor] | None = None

    def build(
        self, configuration: dict[str, Any], contestant: dict[str, Any]
    ) -> dict[str, int | float | list[float]]:
        """Make the model and answer a first time."""
        self.step = None  # the last model goes before the next one comes
        self.calls: dict[str, Counter[Call]] = {}  # kind of step → its operators
        who = Contestant(**contestant)
        torch.set_float32_matmul_precision("medium" if who.precision == "medium" else "highest")
        task = build(who, Configuration.from_json(configuration))
        self.module = task.module.to(self.device).train()
        arguments = _moved(task.arguments, self.device)
        if who.precision == "bf16-true":
            self.module, arguments = self.module.bfloat16(), _halved(arguments)
        run = compiled(self.module, who.compiled)

        def step(kind: str) -> Tensor:
            with self._mode(kind, who.precision):
                output = task.output(run(**arguments))
                if kind == "train":
                    output.float().square().mean().backward()
            return output.detach()

        self.step = step
        start = time.perf_counter()
        output = step("forward").float().flatten()
        self._wait()
        first = time.perf_counter() - start
        index = torch.linspace(0, output.numel() - 1, SAMPLES, device=output.device).long()
        return {
            "parameters": sum(p.numel() for p in self.module.parameters()),
            "first_seconds": first,
            "output": output[index].tolist(),
        }

    @contextlib.contextmanager
    def _mode(self, kind: str, precision: str) -> Iterator[None]:
        halved = torch.autocast(self.device, torch.bfloat16, enabled=precision == "bf16-mixed")
        with torch.set_grad_enabled(kind == "train"), halved:
            yield

    def time(self, kind: str, iterations: int) -> dict[str, list[float]]:
        """Seconds of each of some steps, gradients discarded before each.

        The first is not counted: it has to ask for memory, which goes back at the end of a turn so
        that the processes of all contestants fit on the machine.
        """
        assert self.step is not None
        self.module.zero_grad(set_to_none=True)
        self.step(kind)
        seconds = []
        for _ in range(iterations):
            self.module.zero_grad(set_to_none=True)
            seconds.append(self._clocked(kind))
        self._rest()
        return {"seconds": seconds}

    def _rest(self) -> None:
        self.module.zero_grad(set_to_none=True)
        give_back()

    def memory(self, kind: str) -> dict[str, float]:
        """Bytes of a step beside parameters, inputs and gradients, all there beforehand.

        Of its tensors and, on a CPU, of the process; and its seconds; and those of the first of its
        kind, which compiles what is compiled.
        """
        assert self.step is not None
        first = self._clocked(kind)
        for parameter in self.module.parameters():
            parameter.grad = torch.zeros_like(parameter) if kind == "train" else None
        seconds: list[float] = []
        held = allocated(lambda: seconds.append(self._clocked(kind)), self.device)
        risen = {} if self.device == "cuda" else {"rise": rise(lambda: self.step(kind))}
        found = {
            "allocated": held,
            "total": highest(self.device),
            "seconds": seconds[0],
            "first_seconds": first,
        }
        self._rest()
        return risen | found

    def floor(self, kind: str) -> dict[str, float]:
        """Seconds of a step's operators and of its products and kernels, each timed alone."""
        assert self.step is not None
        if kind not in self.calls:
            self.module.zero_grad(set_to_none=True)
            self.calls[kind] = recorded(lambda: self.step(kind))
        found = alone(self.calls[kind])
        self._rest()
        return found

    def _clocked(self, kind: str) -> float:
        assert self.step is not None
        self._wait()
        start = time.perf_counter()
        self.step(kind)
        self._wait()
        return time.perf_counter() - start

    def peak(self, precision: str, side: int) -> dict[str, Any]:
        """Operations a second of matrix products of several shapes, and of layers in a row."""
        return {
            "rates": matmul_rates(precision, self.device, side),
            "layers": layer_rate(precision, self.device, side),
        }

    def versions(self) -> dict[str, str]:
        from importlib.metadata import version

        from benchmarks.contestants import LIBRARIES

        found = {"torch": torch.__version__}
        for library in LIBRARIES.values():
            with contextlib.suppress(ImportError):
                found[library.distribution] = version(library.distribution)
        return found

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def _moved(value: Any, device: str) -> Any:
    if isinstance(value, dict):
        return {key: _moved(part, device) for key, part in value.items()}
    return value.to(device) if isinstance(value, Tensor) else value


def _halved(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _halved(part) for key, part in value.items()}
    is_real = isinstance(value, Tensor) and value.is_floating_point()
    return value.bfloat16() if is_real else value


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to stderr
    with contextlib.suppress(OSError):  # where memory runs out, this process is the one to go
        Path("/proc/self/oom_score_adj").write_text("1000")
    device, threads = sys.argv[1], int(sys.argv[2])
    if threads:
        torch.set_num_threads(threads)
    bench = Bench(device)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(bench, command.pop("do"))(**command)
        except NotApplicable as error:
            answer = {"absent": str(error)}
        except Exception as error:
            message = FOLDERS.sub("", str(error)).split("\n")[0]
            answer = {"error": f"{type(error).__name__}: {message}"}
            bench.step = None
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
