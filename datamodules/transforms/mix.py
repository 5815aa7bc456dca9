"""MixUp and CutMix of whole examples: all modalities and the target by one share.

Two examples are mixed only if they have the same modalities, so presence stays as it was; who has
no such partner stays as it is. Pictures, films, sound and other numbers are averaged or cut; token
ids cannot be averaged, they are always cut. The target becomes the mean of both targets, weighted
by what is left of each: averaged over the modalities that the example has.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

import torch
from torch import Tensor, nn

from perceiver.types import Batch


class Mix(nn.Module):
    """Base of batch transforms; draws from torch's global generator.

    Args:
        alpha: of Beta(alpha, alpha), which the share that an example keeps is drawn from, for each
            example anew.
        p: chance of an example to be mixed at all.
    """

    def __init__(self, *, alpha: float, p: float = 1.0) -> None:
        super().__init__()
        if alpha <= 0 or not 0 <= p <= 1:
            raise ValueError(
                f"{type(self).__name__}(alpha={alpha}, p={p}): expected alpha above 0 and a "
                "chance in [0, 1]."
            )
        self.alpha, self.p = alpha, p

    def forward(self, batch: Batch) -> Batch:
        """The mixed batch, its targets (b, k) real; the one given is left as it is.

        What is mixed of two examples is known where both are.

        Raises:
            ValueError: the targets are class indices; make them one-hot first.
        """
        if not batch.targets or any(target.dim() != 2 for target in batch.targets.values()):
            raise ValueError("mixing needs targets (b, k): make class indices one-hot first")
        count = len(batch)
        keep = torch.distributions.Beta(self.alpha, self.alpha).sample((count,))
        keep[torch.rand(count) >= self.p] = 1.0
        here = {name: batch.present.get(name, torch.ones(count).bool()) for name in batch.inputs}
        partner = draw_partners(torch.stack(list(here.values()), dim=1))
        # An example is its own partner where nobody else has its modalities.
        keep[partner == torch.arange(count)] = 1.0
        inputs, masks, kept, counted = {}, dict(batch.masks), torch.zeros(count), torch.zeros(count)
        for name, values in batch.inputs.items():
            mask = batch.masks.get(name)
            inputs[name], mask, share = self.mix(values, mask, partner, keep)
            if mask is not None:
                masks[name] = mask
            kept += torch.where(here[name], share, 0.0)
            counted += here[name]
        weight = torch.where(counted > 0, kept / counted.clamp(min=1), 1.0)[:, None]
        targets = {name: target.float() for name, target in batch.targets.items()}
        targets = {n: weight * own + (1 - weight) * own[partner] for n, own in targets.items()}
        alone = weight[:, 0] == 1
        known = {name: flags & (flags[partner] | alone) for name, flags in batch.known.items()}
        return replace(batch, inputs=inputs, masks=masks, targets=targets, known=known)

    def mix(
        self, values: Tensor, mask: Tensor | None, partner: Tensor, keep: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """One modality mixed: values, mask, and (b,) what share of each example is its own.

        Args:
            values: (b, …); integers are token ids (b, length).
            mask: (b, length), True on real elements; None = all are.
            partner: (b,) whom each example is mixed with.
            keep: (b,) what share it should keep.
        """
        if not values.is_floating_point():
            return splice(values, mask, partner, keep)
        return self.mix_numbers(values, mask, partner, keep)

    @abstractmethod
    def mix_numbers(
        self, values: Tensor, mask: Tensor | None, partner: Tensor, keep: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """`mix` of real numbers."""


class MixUp(Mix):
    """keep · x + (1 − keep) · x′ (Zhang et al. 2018).

    The shorter of two sounds or films is followed by silence; the longer one's length stays.
    """

    def mix_numbers(
        self, values: Tensor, mask: Tensor | None, partner: Tensor, keep: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        weight = keep.to(values.dtype).reshape(-1, *[1] * (values.dim() - 1))
        mixed = weight * values + (1 - weight) * values[partner]
        if mask is not None:
            mask = torch.where((keep < 1)[:, None], mask | mask[partner], mask)
        return mixed, mask, keep


class CutMix(Mix):
    """A part of the example is its partner's (Yun et al. 2019).

    Of a picture a box of its proportions, of a film the same box in all frames that both have, of a
    sound or another sequence a span, taken from anywhere in the partner. Unlike the paper's, boxes
    lie wholly inside, so that all modalities give away about the same share.
    """

    def mix_numbers(
        self, values: Tensor, mask: Tensor | None, partner: Tensor, keep: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        return (cut_spans if values.dim() < 4 else cut_boxes)(values, mask, partner, keep)


def draw_partners(pattern: Tensor) -> Tensor:
    """(b,) partner of each row: a permutation of the rows with the same (b, k) pattern.

    No row with company is its own partner: each group is a cycle, in random order.
    """
    partner = torch.arange(len(pattern))
    _, group = pattern.int().unique(dim=0, return_inverse=True)
    for number in range(int(group.max()) + 1):
        rows = (group == number).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows))]
        partner[rows] = rows.roll(1)
    return partner


def cut_boxes(
    values: Tensor, mask: Tensor | None, partner: Tensor, keep: Tensor
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Boxes of (b, c, h, w) pictures, or of (b, t, c, h, w) films, from the same place."""
    height, width = values.shape[-2:]
    root = (1 - keep).sqrt()
    inside = []
    for length in (height, width):
        side = (root * length).round()
        start = (torch.rand(len(keep)) * (length - side + 1)).floor()
        place = torch.arange(length)
        inside.append((place >= start[:, None]) & (place < (start + side)[:, None]))
    box = inside[0][:, :, None] & inside[1][:, None, :]  # b h w
    taken = box.float().mean((1, 2))
    box = box.reshape(len(box), *[1] * (values.dim() - 3), height, width)
    if values.dim() == 5 and mask is not None:
        both = mask & mask[partner]
        box = box & both[:, :, None, None, None]
        taken = taken * both.sum(1) / mask.sum(1).clamp(min=1)
    return torch.where(box, values[partner], values), mask, 1 - taken


def cut_spans(
    values: Tensor, mask: Tensor | None, partner: Tensor, keep: Tensor
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Spans of (b, length, …) sequences; lengths stay."""
    lengths = _lengths(values, mask)
    mixed, share = values.clone(), torch.ones(len(keep))
    for row, (other, own) in enumerate(zip(partner.tolist(), lengths, strict=True)):
        span = min(round((1 - float(keep[row])) * own), lengths[other])
        if span:
            start = int(torch.randint(own - span + 1, ()))
            source = int(torch.randint(lengths[other] - span + 1, ()))
            mixed[row, start : start + span] = values[other, source : source + span]
            share[row] = 1 - span / own
    return mixed, mask, share


def splice(
    values: Tensor, mask: Tensor | None, partner: Tensor, keep: Tensor
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The beginning of (b, length) ids, followed by the end of the partner's."""
    lengths = _lengths(values, mask)
    mixed, share = torch.zeros_like(values), torch.ones(len(keep))
    new_mask = torch.zeros(values.shape[:2], dtype=torch.bool)
    for row, (other, own) in enumerate(zip(partner.tolist(), lengths, strict=True)):
        head = round(float(keep[row]) * own)
        tail = round((1 - float(keep[row])) * lengths[other])
        head = head or int(own > 0 and not tail)  # a text does not become empty
        tail = min(tail, values.shape[1] - head)
        mixed[row, :head] = values[row, :head]
        mixed[row, head : head + tail] = values[other, lengths[other] - tail : lengths[other]]
        new_mask[row, : head + tail] = True
        share[row] = head / max(head + tail, 1)
    return mixed, new_mask if mask is not None or not new_mask.all() else None, share


def _lengths(values: Tensor, mask: Tensor | None) -> list[int]:
    """How many elements of each row are real."""
    return [values.shape[1]] * len(values) if mask is None else mask.sum(1).tolist()
