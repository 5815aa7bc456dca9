"""How averaged weights follow the trained ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import chain

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class WarmedAverage(WeightAveraging):
    """An exponential moving average of weights and statistics that is young while the run is.

    Validated, saved and tested in place of the trained weights, as Lightning's WeightAveraging
    does; see `WarmedModel` for the average. It is kept on the device of the training, in the
    precision in which the model was made: half-precision weights have a full-precision average.

    Args:
        decay: what is kept of the average at each optimizer step, late in the run; in [0, 1).

    Raises:
        ValueError: for another decay.
    """

    def __init__(self, *, decay: float) -> None:
        super().__init__()
        _check(decay)
        self.decay = decay

        self._current: list[Tensor] = []  # of the model, while the average stands in its place

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # Lightning moves the model only after this: its own average would be left on the CPU, and
        # every step would copy all weights there.
        if stage == "fit":
            device = trainer.strategy.root_device
            self._average_model = WarmedModel(pl_module, decay=self.decay, device=device)

    # Lightning's own swap would round the average to the precision of the model and take it back.
    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._average_model is not None:
            self._current = [values.detach().clone() for values in _values(pl_module)]
            self._copy_average_to_current(pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for values, current in zip(_values(pl_module), self._current, strict=False):
            values.detach().copy_(current)
        self._current = []


class WarmedModel(AveragedModel):
    """torch's AveragedModel with a decay that grows to its full value, and statistics averaged too.

    After n updates the decay is min(`decay`, (1 + n) / (10 + n)), so that a short run's average
    does not linger on its initial weights. Whole numbers, as the counters of a batch norm, are
    copied. Updates are counted on the host, so that none waits for the device.

    Args:
        model: is copied.
        decay: what an update keeps of the average, in [0, 1).
        device: where the average stands.

    Raises:
        ValueError: for another decay.
    """

    def __init__(
        self, model: nn.Module, *, decay: float, device: torch.device | None = None
    ) -> None:
        _check(decay)
        super().__init__(model, device=device, use_buffers=True)
        self.decay = decay
        self.n_averaged = self.n_averaged.cpu()

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Let the average go its share of the way to the model as it is; at first, all of it."""
        count = int(self.n_averaged)
        kept = min(self.decay, (1 + count) / (10 + count)) if count else 0.0
        alike = defaultdict[torch.dtype, tuple[list[Tensor], list[Tensor]]](lambda: ([], []))
        for averaged, current in zip(_values(self.module), _values(model), strict=True):
            if isinstance(current, nn.Parameter) and not current.requires_grad and count:
                continue  # frozen: a large encoder's share of a step would be this
            averages, values = alike[averaged.dtype]
            averages.append(averaged.detach())
            values.append(current.detach().to(averaged))
        for dtype, (averages, values) in alike.items():
            if dtype.is_floating_point:
                torch._foreach_lerp_(averages, values, 1.0 - kept)
            else:
                torch._foreach_copy_(averages, values)
        self.n_averaged += 1


def _values(model: nn.Module) -> Iterator[Tensor]:
    return chain(model.parameters(), model.buffers())


def _check(decay: float) -> None:
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"decay={decay} must be at least 0 and below 1")
