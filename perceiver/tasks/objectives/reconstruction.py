"""The input itself, through the bottleneck of the latents."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from perceiver.tasks.objectives.regression import Regression
from perceiver.types import Batch


class Reconstruction(Regression):
    """Each element of a modality, every pixel of a picture say: autoencoding (Jaegle 2022, 4.3).

    Padding and absent modalities are not asked for.

    Args:
        out_dim: numbers of an element: the colours of a pixel.
        modality: what is reconstructed; the model has an output for each of its elements.
        axis: of the numbers of an element in the input: 1 of pictures (b, channels, height, width),
            -1 of arrays; None = an element is one number, as a sample of sound.
        monitor: "mae", "rmse" or "r2".
        mode: "min" or "max".

    Raises:
        ValueError: in `prepare`, for batches without the modality, or where it is no numbers.
    """

    targets = None

    def __init__(
        self,
        *,
        out_dim: int,
        modality: str = "image",
        axis: int | None = 1,
        monitor: str = "mae",
        mode: str = "min",
    ) -> None:
        super().__init__(out_dim=out_dim, monitor=monitor, mode=mode, target=f"whole_{modality}")
        self.modality, self.axis = modality, axis

    def prepare(self, batch: Batch) -> Batch:
        values = batch.inputs.get(self.modality)
        if values is None or not values.is_floating_point():
            what = (
                f"of {values.dtype}" if values is not None else f"not of {', '.join(batch.inputs)}"
            )
            raise ValueError(
                f"the task reconstructs {self.modality}, which must be of real numbers, {what}: "
                "set task.objective.modality"
            )
        elements = values[..., None] if self.axis is None else values.movedim(self.axis, -1)
        target = elements.flatten(1, -2)
        return replace(
            batch,
            targets={**batch.targets, self.target: target},
            known={**batch.known, **self._asked(batch, target)},
        )

    def _asked(self, batch: Batch, target: Tensor) -> dict[str, Tensor]:
        """Which elements are there, unless all are."""
        mask, here = batch.masks.get(self.modality), batch.present.get(self.modality)
        if mask is not None:
            mask = mask.flatten(1)
        if here is not None:
            here = here[:, None].expand(target.shape[:2])
        both = [flags for flags in (mask, here) if flags is not None]
        return {self.target: both[0] if len(both) == 1 else both[0] & both[1]} if both else {}
