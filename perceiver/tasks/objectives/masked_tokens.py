"""Hidden tokens of a text, for a model to find."""

from __future__ import annotations

from dataclasses import replace
from zlib import crc32

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from perceiver.shapes import Bool, Float, Int
from perceiver.tasks.objectives.single_label import SingleLabel
from perceiver.types import Batch


class MaskedTokens(SingleLabel):
    """Which token stood where one was hidden: BERT's masking (Devlin et al. 2019, 3.1).

    Of the tokens chosen, a share becomes the mask token, a share a random token, the rest stay.
    Training draws anew each time, from torch's global generator; evaluation draws of each text what
    depends on the text alone.

    Args:
        out_dim: number of ids.
        modality: whose tokens are hidden; the model has an output for each.
        p: chance of a token to be chosen; at least one of each text is. Special tokens never are.
        mask: share of the chosen that become `mask_id`.
        random: share of the chosen that become a random token.
        mask_id: the mask token.
        num_specials: ids below this are special tokens.
        label_smoothing: share of the target spread over all ids.
        monitor: "acc" or "f1", of the chosen tokens.
        mode: "max".

    Raises:
        ValueError: for chances and shares that are none; in `prepare`, for batches without the
            modality.
    """

    targets = None

    def __init__(
        self,
        *,
        out_dim: int,
        modality: str = "text",
        p: float = 0.15,
        mask: float = 0.8,
        random: float = 0.1,
        mask_id: int = 3,
        num_specials: int = 6,
        label_smoothing: float = 0.0,
        monitor: str = "acc",
        mode: str = "max",
    ) -> None:
        super().__init__(
            out_dim=out_dim,
            label_smoothing=label_smoothing,
            monitor=monitor,
            mode=mode,
            target=f"masked_{modality}",
        )
        if not 0 < p <= 1 or min(mask, random) < 0 or mask + random > 1:
            raise ValueError(
                f"MaskedTokens(p={p}, mask={mask}, random={random}): expected a chance in (0, 1] "
                "and two shares that sum to at most 1."
            )
        self.modality, self.p, self.mask, self.random = modality, p, mask, random
        self.mask_id, self.num_specials = mask_id, num_specials

    def prepare(self, batch: Batch) -> Batch:
        if self.modality not in batch.inputs:
            raise ValueError(
                f"the task hides tokens of {self.modality}, but the batch has "
                f"{', '.join(batch.inputs)}: give it, or set task.objective.modality"
            )
        ids = batch.inputs[self.modality]
        real = batch.masks.get(self.modality, torch.ones_like(ids, dtype=torch.bool))
        ordinary = real & (ids >= self.num_specials)
        if self.modality in batch.present:
            ordinary = ordinary & batch.present[self.modality][:, None]
        draw, fate, noise = self._uniform(ids, real).to(ids.device)
        first = draw.masked_fill(~ordinary, 2.0)
        at_least = first == first.amin(1, keepdim=True)
        chosen = ordinary & ((draw < self.p) | at_least)
        others = self.out_dim - self.num_specials
        tokens = self.num_specials + (noise * others).long().clamp(max=others - 1)
        hidden = torch.where(chosen & (fate < self.mask), self.mask_id, ids)
        is_random = chosen & (fate >= self.mask) & (fate < self.mask + self.random)
        hidden = torch.where(is_random, tokens, hidden)
        return replace(
            batch,
            inputs={**batch.inputs, self.modality: hidden},
            targets={**batch.targets, self.target: ids},
            known={**batch.known, self.target: chosen},
        )

    def test_metrics(self) -> MetricCollection:
        return self.metrics()  # there are too many tokens to keep what AUROC takes

    def _uniform(
        self, ids: Int[Tensor, "b m"], real: Bool[Tensor, "b m"]
    ) -> Float[Tensor, "3 b m"]:
        """Three numbers in [0, 1) for each real token."""
        if self.training:
            return torch.rand(3, *ids.shape, device=ids.device)
        numbers, generator = torch.ones(3, *ids.shape), torch.Generator()
        for row, (text, length) in enumerate(zip(ids.cpu(), real.sum(1).tolist(), strict=True)):
            generator.manual_seed(crc32(text[:length].numpy().tobytes()))
            numbers[:, row, :length] = torch.rand(length, 3, generator=generator).T
        return numbers
