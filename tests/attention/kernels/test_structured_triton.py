"""The Triton kernels against a float64 softmax: on a GPU, and in Triton's interpreter without one.

The interpreter must be chosen before Triton is imported, so this file runs itself in a process of
its own that does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from typing import NamedTuple

import pytest
import torch
from test_structured import definition, gradients, results

from perceiver.attention.kernels.structured import attend as structured
from perceiver.attention.kernels.structured import chunks
from perceiver.attention.kernels.structured.attend import attend

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")


class Sizes(NamedTuple):
    """Of a problem: a grid if it has columns, position codes if they have channels.

    One query serves all examples if it is shared.
    """

    rows: int
    channels: int
    tokens: int = 0
    lines: int = 0
    columns: int = 0
    code: int = 0
    batch: int = 2
    is_shared: bool = False


CASES = {
    "content": Sizes(rows=5, channels=4, tokens=77),
    "content in two blocks": Sizes(rows=3, channels=37, tokens=67),
    "content, blocks of rows, parts of tokens": Sizes(rows=67, channels=3, tokens=577),
    "one query for all": Sizes(rows=7, channels=5, tokens=31, batch=3, is_shared=True),
    "code": Sizes(rows=5, channels=4, tokens=131, code=11, batch=3),
    "code, one query for all": Sizes(rows=5, channels=4, tokens=67, code=17, is_shared=True),
    "code, examples in groups": Sizes(
        rows=3, channels=4, tokens=577, code=3, batch=5, is_shared=True
    ),
    "grid": Sizes(rows=5, channels=4, lines=7, columns=11),
    "grid, one query for all": Sizes(rows=5, channels=4, lines=3, columns=5, is_shared=True),
    "grid, blocks of columns": Sizes(rows=3, channels=4, lines=5, columns=71),
    "grid, parts of lines": Sizes(rows=67, channels=6, lines=13, columns=37, batch=1),
    "grid, content fills its block": Sizes(rows=3, channels=16, lines=3, columns=5),
    "grid, content in two blocks": Sizes(rows=3, channels=36, lines=3, columns=5),
}


def problem(sizes, *, scale=1.0, dtype=torch.float64, empty=None):
    """Arguments of `attend` and its mask; the example `empty` has nothing to attend to."""
    torch.manual_seed(7)
    rows, k, tokens, lines, columns, t, b, is_shared = sizes
    queries = 1 if is_shared else b
    m = tokens or lines * columns
    keep = torch.rand(b, m) > 0.3
    if empty is not None:
        keep[empty] = False
    content = torch.randn(b, m, k, dtype=torch.float64) * keep[..., None]
    content[..., -1] = keep
    arguments = {"query": scale * torch.randn(queries, rows, k) / k**0.5, "content": content}
    if not tokens or t:
        arguments["rho"] = (torch.rand(b, m) + 0.5) * keep
    if t:
        arguments["code"] = torch.randn(m, t)
        arguments["query_tail"] = scale * torch.randn(queries, rows, t) / t**0.5
    if columns:
        arguments["query_tail"] = scale * torch.randn(queries, rows, lines)
        arguments["query_columns"] = scale * torch.randn(queries, rows, columns)
    rounded = {name: x.to(dtype).requires_grad_() for name, x in arguments.items()}
    return rounded, keep


def on(device, arguments):
    return {name: x.detach().to(device).requires_grad_() for name, x in arguments.items()}


def double(arguments):
    return {name: x.detach().double().requires_grad_() for name, x in arguments.items()}


@pytest.fixture
def device(monkeypatch):
    """Where the kernels run, made to serve there."""
    if not IS_INTERPRETED and not torch.cuda.is_available():
        pytest.skip("needs a GPU, or TRITON_INTERPRET=1")
    from perceiver.attention.kernels.triton import launch

    monkeypatch.setattr(structured, "_kernels", lambda *tokens: launch)
    monkeypatch.setattr(chunks, "Tokens", None)  # chunks would raise
    return "cpu" if IS_INTERPRETED else "cuda"


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_the_kernels_are_a_softmax_over_all_scores(name, device):
    arguments, keep = problem(CASES[name], dtype=torch.float32)
    ours, exact = on(device, arguments), double(arguments)
    partial, expected = attend(**ours), definition(**exact)
    for x, y in zip(results(partial), results(expected), strict=True):
        torch.testing.assert_close(x.cpu().double(), y, rtol=1e-5, atol=1e-5)
    found, expected = gradients_of(partial, ours, keep), gradients(expected, exact, keep)
    for part in arguments:
        torch.testing.assert_close(
            found[part].cpu().double(), expected[part], rtol=1e-4, atol=1e-4, msg=part
        )


def gradients_of(partial, arguments, keep):
    """`gradients` wherever the results are."""
    moved = type(partial)(*(None if x is None else x.cpu().double() for x in partial))
    return gradients(moved, arguments, keep.to(arguments["content"].device))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["content", "code", "grid, blocks of columns"])
def test_scores_far_beyond_what_an_exponential_holds(name, device):
    arguments, _ = problem(CASES[name], scale=200.0, dtype=torch.float32)
    expected = definition(**double(arguments))
    assert expected[3].max() > 200
    for x, y in zip(results(attend(**on(device, arguments))), results(expected), strict=True):
        torch.testing.assert_close(x.cpu().double(), y, rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["content", "code", "grid, blocks of columns"])
def test_an_example_without_tokens_reads_zeros_and_has_no_gradients(name, device):
    arguments, _ = problem(CASES[name], dtype=torch.float32, empty=1)
    ours = on(device, arguments)
    partial = attend(**ours)
    assert partial.lse[1].eq(float("-inf")).all()
    assert partial.lse[0].isfinite().all()
    read = [x for x in (partial.content, partial.tail, partial.columns) if x is not None]
    assert all(x[1].eq(0).all() for x in read)
    sum(x.square().sum() for x in read).backward()
    assert all(x.grad.isfinite().all() for x in ours.values())
    assert ours["query"].grad[1].eq(0).all()
    assert ours["content"].grad[1].eq(0).all()


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["content", "grid"])
def test_half_precision_tokens_are_read_as_they_are(name, device):
    arguments, keep = problem(CASES[name], dtype=torch.bfloat16)
    ours, exact = on(device, arguments), double(arguments)
    partial, expected = attend(**ours), definition(**exact)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if IS_INTERPRETED else {"rtol": 2e-3, "atol": 2e-3}
    for x, y in zip(results(partial), results(expected), strict=True):
        assert x.dtype == torch.float32
        torch.testing.assert_close(x.cpu().double(), y, **tolerance)
    found, expected = gradients_of(partial, ours, keep), gradients(expected, exact, keep)
    for part in arguments:
        assert found[part].dtype == torch.bfloat16
        torch.testing.assert_close(
            found[part].cpu().double(), expected[part], rtol=1e-2, atol=1e-2, msg=part
        )


@pytest.mark.gpu
def test_what_is_too_wide_for_registers_goes_in_chunks(device):
    from perceiver.attention.kernels.triton import launch as kernels

    assert kernels.supports(torch.zeros(1, 3, 80), None, None)
    assert not kernels.supports(torch.zeros(1, 3, 81), None, None)
    assert not kernels.supports(torch.zeros(1, 3, 6), torch.zeros(3, 300), None)
    assert not kernels.supports(torch.zeros(1, 3, 6, dtype=torch.float64), None, None)
    assert not kernels.supports(torch.zeros(0, 3, 6), None, None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("channels", [6, 300], ids=["kernels", "chunks"])
def test_nothing_waits_for_the_device(channels):
    arguments, _ = problem(Sizes(rows=5, channels=channels, lines=7, columns=11))
    ours = on("cuda", {name: x.float() for name, x in arguments.items()})
    attend(**ours).content.sum().backward()  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        attend(**ours).content.sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.slow  # `auto` never takes these kernels by itself
@pytest.mark.skipif(IS_INTERPRETED, reason="this is the interpreter")
def test_the_interpreter_passes_all_that_a_gpu_would():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", __file__],
        env=os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert f"{len(CASES) + 9} passed" in done.stdout


# The interpreter takes what the compiler refuses, and knows no limits of a chip.
@pytest.mark.slow
@pytest.mark.skipif(IS_INTERPRETED, reason="nothing is compiled")
@pytest.mark.parametrize(("capability", "kibibytes"), [(80, 99), (90, 227)])
@pytest.mark.parametrize(
    ("channels", "code", "width"), [(6, 0, 224), (5, 33, 0), (67, 0, 56), (64, 0, 0), (31, 32, 0)]
)
def test_the_kernels_compile_for_a_gpu_that_is_not_here(
    channels, code, width, capability, kibibytes
):
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from perceiver.attention.kernels.triton.backward import (
        backward_rows_kernel,
        backward_tokens_kernel,
    )
    from perceiver.attention.kernels.triton.blocks import blocks
    from perceiver.attention.kernels.triton.forward import forward_kernel
    from perceiver.attention.kernels.triton.launch import constants

    for kernel in (forward_kernel, backward_rows_kernel, backward_tokens_kernel):
        is_of_tokens = kernel is backward_tokens_kernel
        cut = blocks(channels, code, width, for_tokens=is_of_tokens)
        fixed = constants(cut, channels, is_grid=width > 0, has_code=code > 0, precision="tf32x3")
        names = [name for name in kernel.arg_names if name not in fixed]
        first_number = names.index("query_batch")
        types = dict.fromkeys(names[:first_number], "*fp32")
        types |= dict.fromkeys(names[first_number:], "i32")
        types |= dict.fromkeys(fixed, "constexpr")
        compiled = compile(
            ASTSource(kernel, types, constexprs=fixed),
            target=GPUTarget("cuda", capability, 32),
            options={"num_warps": cut.warps, "num_stages": cut.stages},
        )
        # Chips that run the code of 8.0 have at least 99.
        assert compiled.metadata.shared <= kibibytes << 10, kernel
