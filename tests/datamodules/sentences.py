"""Rows of three modalities, and the shards that they are packed into."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datamodules.core.columns import Numbers, Tensors, Values
from datamodules.core.dataset import SPLITS
from datamodules.core.rows import Rows
from datamodules.core.rows_datamodule import RowsDataModule
from datamodules.layouts.shards.data import ShardsDataModule
from datamodules.layouts.shards.writer import pack

COUNTS = {"train": 37, "val": 5, "test": 7}
TOTAL = sum(COUNTS.values())


class Sentences(RowsDataModule):
    """37 + 5 + 7 rows of a text of its own length, two numbers and a tensor; some lack some."""

    available_modalities = ("text", "array", "audio")

    def __init__(self, **options):
        common = {"modalities": ["text", "array", "audio"], "batch_size": 3, "cache_gib": 0}
        kinds = {
            "text": {"tokenizer": "bytes", "max_length": 40, "pad_multiple": 4},
            "array": {"length": 2, "mean": [1.0, 2.0], "std": [1.0, 3.0]},
            "audio": {"sample_rate": 10, "max_seconds": 1.0},
        }
        super().__init__(**common | kinds | options)

    def rows(self):
        rng = np.random.default_rng(0)
        numbers = rng.normal(size=(TOTAL, 2))
        numbers[::7, 0] = np.nan
        numbers[4] = np.nan
        sounds = [torch.from_numpy(rng.random(1 + n % 9, dtype=np.float32)) for n in range(TOTAL)]
        texts = [None if n % 5 == 3 else f"é text {n} " + "x" * (n % 11) for n in range(TOTAL)]
        return Rows(
            {"text": Values(texts), "array": Numbers(numbers), "audio": Tensors(sounds)},
            labels=["odd" if n % 3 else "even" for n in range(TOTAL)],
            ids=[f"row {n}" for n in range(TOTAL)],
            splits=np.repeat(SPLITS, list(COUNTS.values())),
        )


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A folder of shards of `Sentences`, several a split."""
    out = str(tmp_path_factory.mktemp("shards") / "set")
    pack(Sentences(), out, shard_bytes=9000)
    return out


def shards(root, *, rank=0, world_size=1, **options):
    data = ShardsDataModule(
        root=root, **{"modalities": None, "batch_size": 3, "cache_gib": 0} | options
    )
    data.trainer = SimpleNamespace(
        global_rank=rank,
        world_size=world_size,
        overfit_batches=0,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    return data
