"""Run as `python distributed.py ddp,fsdp [NAME…]`: two processes have the gradients of one.

Each process has half of a batch. Its gradients must be those of one process with all of it: for
DDP those of every parameter, for FSDP2 (`fully_shard`) those of the shards put together.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from itertools import product

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from perceiver.attention import ReinforceLoss, SampledChoices
from tests.attention.presets import PRESETS, RANDOM, build, inputs


class Model(torch.nn.Module):
    """An attention and a layer that learns even where the attention has nothing to."""

    def __init__(self, attention: torch.nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.linear = torch.nn.Linear(attention.query_dim, 3).double()

    def forward(self, query, context, mask):
        return self.linear(self.attention(query, context, mask=mask).out)


def gradients(model: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
    """Of the mean over examples; a model that samples adds its loss."""
    choices = SampledChoices(model) if model.training else None
    if not choices:
        model(*given).square().mean().backward()
    else:
        with choices as found:
            losses = model(*given).square().mean((1, 2))
        (losses.mean() + ReinforceLoss()(-losses, found)).backward()
    found = {name.removeprefix("module."): p.grad for name, p in model.named_parameters()}
    return {
        name: grad.full_tensor() if hasattr(grad, "full_tensor") else grad
        for name, grad in found.items()
        if grad is not None
    }


def check(way: str, name: str, rank: int) -> None:
    torch.manual_seed(0)
    model = Model(build(name))
    query, context = inputs(name)
    keep = torch.ones(context.shape[:2], dtype=torch.bool)
    keep[1, context.shape[1] // 2 :] = False
    whole = (query, context, keep)
    mine = tuple(x[rank : rank + 1] for x in whole)
    expected = gradients(copy.deepcopy(model), whole)
    # Hard attention gives its scores no gradient in evaluation.
    idle = {n for n, _ in model.named_parameters()} - set(expected)
    if way == "ddp":
        shared = DistributedDataParallel(copy.deepcopy(model), find_unused_parameters=bool(idle))
    else:
        shared = copy.deepcopy(model)
        fully_shard(shared.attention)
        fully_shard(shared)
    found = gradients(shared, mine)
    assert set(found) >= set(expected), set(expected) - set(found)
    torch.testing.assert_close({n: found[n] for n in expected}, expected)
    if name in RANDOM and way == "ddp":
        # What processes sample differs; what they learn does not.
        trained = DistributedDataParallel(model.train())
        mean = torch.cat([g.flatten() for g in gradients(trained, mine).values()])
        other = mean.clone()
        dist.broadcast(other, 0)
        torch.testing.assert_close(mean, other)


def work(rank: int, ways: list[str], names: list[str], meeting: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    failed = False
    for way, name in product(ways, names):
        try:
            check(way, name, rank)
        except Exception as error:
            failed = True
            print(f"{way} {name}: {type(error).__name__}: {str(error)[:600]}", flush=True)
    dist.barrier()
    dist.destroy_process_group()
    sys.exit(failed)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        arguments = (sys.argv[1].split(","), sys.argv[2:] or PRESETS, f"{folder}/meeting")
        torch.multiprocessing.start_processes(work, arguments, nprocs=2, start_method="fork")
