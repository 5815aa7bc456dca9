"""A DataLoader that a run can leave in the middle of an epoch and take up again there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from datamodules.loading.samplers import EpochBatches, EpochSampler
from datamodules.loading.worker_transport import SharedBuffers
from perceiver.types import Batch


def pins(wanted: bool | None, trainer: pl.Trainer | None) -> bool:
    """Whether batches are copied to page-locked memory; None = where the trainer has a GPU."""
    if wanted is not None:
        return wanted
    return trainer is not None and trainer.strategy.root_device.type == "cuda"


class ResumableLoader(DataLoader[Batch]):
    """Batches of an `EpochBatches`, counted as they are handed out.

    Lightning saves `state_dict` in every checkpoint and restores it, so that a run killed after
    batch j continues with batch j + 1: an epoch's order and all its randomness depend on (seed,
    epoch, index) alone, so its position is all there is to know. Batches that workers have read
    ahead are not counted.

    Args:
        **options: of DataLoader, `batch_sampler` among them.
    """

    batch_sampler: EpochBatches

    def __init__(self, dataset: Any, **options: Any) -> None:
        workers, prefetch = options.get("num_workers", 0), options.get("prefetch_factor") or 2
        if workers:  # as many as one has read ahead, and two that are in use
            options["worker_init_fn"] = SharedBuffers(prefetch + 2)
        super().__init__(dataset, **options)
        self._epoch, self._given = 0, 0
        self._resume: tuple[int, int] | None = None

    def _now(self) -> int:
        return getattr(self.batch_sampler.sampler, "epoch", 0)

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is of; Lightning asks the sampler itself."""
        if isinstance(self.batch_sampler.sampler, EpochSampler):
            self.batch_sampler.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[Batch]:
        # A generator: Lightning makes the iterator before it tells the sampler the epoch.
        self._epoch, self._given = self._now(), 0
        if self._resume is not None:
            epoch, batches = self._resume
            self._resume = None
            if epoch == self._epoch and batches < len(self):
                self.batch_sampler.start = self._given = batches
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def _batch_size(self) -> int:
        return self.batch_sampler.batch_size * getattr(self.batch_sampler.sampler, "world_size", 1)

    def state_dict(self) -> dict[str, int]:
        """How far the epoch is, as plain numbers."""
        epoch, batches = self._resume or (self._epoch, self._given)
        return {"epoch": epoch, "batches": batches, "batch_size": self._batch_size()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on where `state_dict` says, if the next iteration is of that epoch.

        Raises:
            ValueError: batches of all processes together were of another size in the middle of an
                epoch, so that their number says nothing here.
        """
        epoch, batches = state_dict["epoch"], state_dict["batches"]
        if 0 < batches < len(self) and state_dict["batch_size"] != self._batch_size():
            raise ValueError(
                f"The checkpoint was written in the middle of an epoch of "
                f"{state_dict['batch_size']} examples a batch (data.batch_size × processes), "
                f"this run has {self._batch_size()}: resume with as many."
            )
        self._resume = (epoch, batches)
