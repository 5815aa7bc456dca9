"""Run as `python traced.py export,compile [NAME…]`: every preset gives the same when traced."""

from __future__ import annotations

import io
import sys
from itertools import product

import torch

from perceiver.attention import Attention, SampledChoices
from tests.attention.presets import GRIDS, PRESETS, RANDOM, build, inputs


class Out(torch.nn.Module):
    """Attention with tensors in and out."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, query, context, mask):
        return self.attention(query, context, mask=mask).out


def masked(context: torch.Tensor) -> torch.Tensor:
    """A mask of which the first example keeps all and the second little."""
    keys = torch.arange(context.shape[1])
    lengths = torch.full((len(context), 1), context.shape[1])
    lengths[1] = 2
    return keys < lengths


def compiles(name: str) -> None:
    """Without a break in the graph, forward and backward."""
    torch._dynamo.reset()
    module = Out(build(name, torch.float32))
    query, context = inputs(name, dtype=torch.float32)
    # Generating code takes seconds a variant; tracing forward and backward finds graph breaks.
    # (aot_eager mistakes the strides of the gradient of elu.)
    generated = ("multi_head", "linear", "fast_weights")
    backend = "inductor" if name in generated else "aot_eager"
    traced = torch.compile(module, fullgraph=True, backend=backend)
    given = query.requires_grad_(), context.requires_grad_(), masked(context)
    grads = []
    for run in (module, traced):
        out = run(*given)
        grads.append((out, *torch.autograd.grad(out.square().sum(), given[:2], allow_unused=True)))
    for ours, expected in zip(*grads, strict=True):
        # Relative to the largest: weights that are not normalised give numbers that cancel.
        largest = 1.0 if expected is None else max(1.0, expected.detach().abs().max().item())
        torch.testing.assert_close(ours, expected, rtol=2e-5, atol=2e-5 * largest)
    if name in RANDOM:
        choices = SampledChoices(module.train())
        with choices as found:
            traced(*given)
        assert len(found) == choices.count


def exports(name: str) -> None:
    """Saved and loaded, and run with another batch size and (but on a grid) another length."""
    module = Out(build(name, torch.float32))
    query, context = inputs(name, dtype=torch.float32)
    batch, keys = torch.export.Dim("batch", min=2, max=64), torch.export.Dim("keys", min=2, max=64)
    lengths = {0: batch} if name in GRIDS else {0: batch, 1: keys}
    dynamic = {"query": {0: batch}, "context": lengths, "mask": lengths}
    given = (query, context, masked(context))
    program = torch.export.export(module, given, dynamic_shapes=dynamic)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    query, context = (torch.cat([x, torch.randn_like(x)])[:3] for x in (query, context))
    if name not in GRIDS:
        context = torch.cat([context, torch.randn_like(context)], 1)[:, :11]
    given = (query, context, masked(context))
    torch.testing.assert_close(loaded(*given), module(*given))


if __name__ == "__main__":
    checks = {"export": exports, "compile": compiles}
    failed = []
    for way, name in product(sys.argv[1].split(","), sys.argv[2:] or PRESETS):
        try:
            checks[way](name)
        except Exception as error:
            failed.append(name)
            print(f"{way} {name}: {type(error).__name__}: {str(error)[:600]}", flush=True)
    sys.exit(bool(failed))
