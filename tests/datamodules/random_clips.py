"""Clips of seven lengths, of random numbers, in 11 training batches an epoch."""

import numpy as np
import torch

from datamodules.core.columns import Tensors
from datamodules.core.datamodule import MultimodalDataModule
from datamodules.core.dataset import Source


class Lengths(Tensors):
    """Says nothing of its cells but how long they will be."""

    def absent(self):
        return np.zeros(len(self), dtype=bool)

    def lengths(self, reader):
        return 1 + np.arange(len(self)) % 7


class Clips(Source):
    def __init__(self, count):
        super().__init__(
            targets=[i % 2 for i in range(count)],
            ids=[str(i) for i in range(count)],
            columns={"audio": Lengths([None] * count)},
        )

    def read(self, index, rng):
        return {"audio": torch.from_numpy(rng.random(1 + index % 7, dtype=np.float32))}


class ClipsDataModule(MultimodalDataModule):
    available_modalities = ("audio",)

    def __init__(self, **common):
        options = {"modalities": ["audio"], "batch_size": 3}
        super().__init__(**options | common, audio={"sample_rate": 7, "max_seconds": 1.0})

    def build(self):
        return ["no", "yes"], {
            name: Clips(n) for name, n in [("train", 31), ("val", 3), ("test", 2)]
        }
