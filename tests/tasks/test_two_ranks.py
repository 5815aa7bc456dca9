"""Two processes, one of which has no target of some kind: neither waits for the other for ever."""

import os
import socket
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from perceiver.tasks import MultiLabel, SingleLabel
from perceiver.tasks.metrics import SplitMetrics
from perceiver.types import Batch

LABELS = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 1]])
OUTPUTS = torch.randn(4, 1, 3, generator=torch.Generator().manual_seed(7))


def values_of(objective, *parts) -> dict[str, float]:
    metrics = SplitMetrics(objective=objective, subsets=["x", "y"])
    for outputs, made in parts:
        metrics.update(objective, outputs, made)
        metrics.update_subset("x", objective, outputs, made, torch.ones(len(made)).bool())
        metrics.update_subset("y", objective, outputs, made, torch.zeros(len(made)).bool())
    return {name: value.item() for name, value in metrics.compute().items()}


def asking(labels, **known) -> Batch:
    inputs = {"x": torch.zeros(4, 1)}
    targets = {} if labels is None else {"target": labels}
    return Batch(inputs, targets=targets, known=known)


def one_rank(rank: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2, timeout=timedelta(seconds=120))
    here = torch.full((4,), rank == 0)
    found = {}
    for name, objective, target in (
        ("labels", MultiLabel(out_dim=3), LABELS),
        ("class", SingleLabel(out_dim=3), LABELS.argmax(1)),
    ):
        made = asking(target if rank == 0 else None, target=here)
        found[name] = values_of(objective, (OUTPUTS, made))
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_a_process_without_targets_leaves_metrics_to_the_other(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    # Forked, not spawned: nothing is imported again.
    mp.start_processes(one_rank, (port, str(tmp_path)), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    alone = {
        "labels": values_of(MultiLabel(out_dim=3), (OUTPUTS, asking(LABELS))),
        "class": values_of(SingleLabel(out_dim=3), (OUTPUTS, asking(LABELS.argmax(1)))),
    }
    assert alone["labels"].keys() == {"loss", "map", "acc", "map/x"}
    for name, expected in alone.items():
        assert first[name] == second[name] == expected
