"""The data that flows through the framework: Batch → Segment → ByteArray.

Shape letters, the same everywhere:

    b  examples in a batch            m  tokens of a byte array (its length)
    h  attention heads                n  latents
    q  queries    k  keys             c  channels of a byte array    d  width of a latent or a head
    o  output queries                 e  width of an output query

Masks are boolean, True = may be attended to. They are never floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from perceiver.shapes import Bool, Float


def _mover(device: torch.device | str, non_blocking: bool | None) -> Callable[[Tensor], Tensor]:
    """How tensors get to a device.

    Lightning leaves the choice to the batch. Of page-locked memory CUDA orders the copy before
    what uses it, of other memory it waits; copies back to a CPU may be read too early.
    """
    if non_blocking is None:
        non_blocking = torch.device(device).type == "cuda"
    return lambda tensor: tensor.to(device, non_blocking=non_blocking)


@dataclass
class Batch:
    """Examples of one mini-batch, as a collator makes it and a task takes it.

    Args:
        inputs: modality → tensor (b, …) as the modality's adapter expects it. An example that lacks
            the modality holds zeros there.
        masks: modality → (b, length) bool, (b, height, width) of images, True on elements that are
            not padding. A modality whose examples are all full, or absent, has no entry.
        present: modality → (b,) bool, False where the example lacks the modality altogether. A
            modality that all examples have needs no entry.
        targets: name → what a model is to answer: (b,) class indices, (b, k) 0/1 labels or real
            values, or the same of each of o outputs, (b, o) and (b, o, k). A lone target is called
            "target". None for prediction. Targets keep their types where a trainer casts batches
            to half precision, which would round what the answers are held against: Lightning
            casts fields, and this is none.
        known: name → (b,) or (b, o) bool, False where the target is not known. A target that is
            known everywhere needs no entry; one that no example has needs no tensor in `targets`.
        ids: one name per example, for reports and error messages.
        part: of the split, where it is reported apart from the rest: "length_40".
    """

    inputs: dict[str, Tensor]
    masks: dict[str, Tensor] = field(default_factory=dict)
    present: dict[str, Tensor] = field(default_factory=dict)
    if TYPE_CHECKING:
        targets: dict[str, Tensor] = field(default_factory=dict)
    else:
        targets: InitVar[dict[str, Tensor] | None] = None
    known: dict[str, Tensor] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    part: str = ""

    def __post_init__(self, targets: dict[str, Tensor] | None = None) -> None:  # noqa: RUF033
        self.targets = dict(targets or {})

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values()), ()))

    def has_any(self, modalities: Sequence[str]) -> Bool[Tensor, " b"]:
        """Which examples have at least one of the modalities."""
        everywhere = torch.ones(
            len(self), dtype=torch.bool, device=next(iter(self.inputs.values())).device
        )
        return torch.stack([self.present.get(name, everywhere) for name in modalities]).any(0)

    def has_all(self) -> Bool[Tensor, " b"]:
        """Which examples have every modality of the batch."""
        first = next(iter(self.inputs.values()))
        everywhere = torch.ones(len(self), dtype=torch.bool, device=first.device)
        return torch.stack([everywhere, *self.present.values()]).all(0)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        def mapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: function(tensor) for name, tensor in tensors.items()}

        return replace(
            self,
            inputs=mapped(self.inputs),
            masks=mapped(self.masks),
            present=mapped(self.present),
            targets=mapped(self.targets),
            known=mapped(self.known),
        )

    def to(self, device: torch.device | str, non_blocking: bool | None = None) -> Batch:
        """The same batch on another device; `non_blocking`: None = to a CUDA device only."""
        return self._map(_mover(device, non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory (called by DataLoader)."""
        return self._map(Tensor.pin_memory)


@dataclass(frozen=True)
class Segment:
    """The tokens of one modality, content and position kept apart.

    Token m is the concatenation [content_m, code_1[i_1], …, code_A[i_A], constant], where
    (i_1, …, i_A) is m's index on a grid of A axes (row-major). On a grid the positions of an image
    of 224 × 224 are thus 2 × 224 codes, not 50,176: kernels may use that, `dense` spells it out.

    Args:
        content: (b, m, c) what differs from example to example.
        axes: one (length, code) tensor per axis; the lengths' product is m. Empty: no positions.
        constant: (k,) channels that all tokens of the segment share: modality embedding, padding.
        mask: (b, m), True = a real token; None = all are.
        shape: the grid that the m tokens came from, to lay attention weights back onto the input.
    """

    content: Float[Tensor, "b m c"]
    axes: tuple[Tensor, ...] = ()
    constant: Float[Tensor, " k"] | None = None
    mask: Bool[Tensor, "b m"] | None = None
    shape: tuple[int, ...] = ()

    @property
    def channels(self) -> int:
        constant = 0 if self.constant is None else self.constant.shape[0]
        return self.content.shape[-1] + sum(code.shape[-1] for code in self.axes) + constant

    def dense(self) -> Float[Tensor, "b m channels"]:
        """The tokens as one tensor: the definition of what a segment means.

        Raises:
            ValueError: if the position codes are of another grid than the content.
        """
        b, m, _ = self.content.shape
        parts = [self.content]
        lengths = [code.shape[0] for code in self.axes]
        if lengths and math.prod(lengths) != m:
            raise ValueError(f"position codes of a grid {lengths} do not fit {m} tokens")
        for axis, code in enumerate(self.axes):
            view = [1] * axis + [lengths[axis]] + [1] * (len(lengths) - axis - 1) + [-1]
            grid = code.reshape(view).expand(*lengths, -1).reshape(1, m, -1)
            parts.append(grid.expand(b, -1, -1).to(self.content.dtype))
        if self.constant is not None:
            parts.append(self.constant.to(self.content.dtype).expand(b, m, -1))
        return torch.cat(parts, dim=-1) if len(parts) > 1 else self.content

    def keep(self, present: Bool[Tensor, " b"]) -> Segment:
        """The segment with the tokens of absent examples masked."""
        b, m, _ = self.content.shape
        mask = present[:, None].expand(b, m)
        return replace(self, mask=mask if self.mask is None else self.mask & mask)


def joined_mask(segments: Sequence[Segment]) -> Bool[Tensor, "b m"] | None:
    """The masks of segments one after the other; None if every token is real."""
    if all(segment.mask is None for segment in segments):
        return None
    return torch.cat(
        [
            segment.content.new_ones(segment.content.shape[:2], dtype=torch.bool)
            if segment.mask is None
            else segment.mask
            for segment in segments
        ],
        dim=1,
    )


@dataclass(frozen=True)
class ByteArray:
    """What latents cross-attend: segments of equal width, in sorted order of their modalities."""

    segments: Mapping[str, Segment]

    @property
    def tokens(self) -> Float[Tensor, "b m c"]:
        """All segments, dense and concatenated: what a byte array means."""
        return torch.cat([segment.dense() for segment in self.segments.values()], dim=1)

    @property
    def mask(self) -> Bool[Tensor, "b m"] | None:
        """(b, m), True on real tokens; None if every token is real."""
        return joined_mask(list(self.segments.values()))

    @property
    def spans(self) -> dict[str, slice]:
        """Where each modality's tokens lie along m."""
        spans, start = {}, 0
        for name, segment in self.segments.items():
            stop = start + segment.content.shape[1]
            spans[name] = slice(start, stop)
            start = stop
        return spans


class TargetKind(StrEnum):
    """What the target of an example is; the value is what a sentence calls it.

    Attributes:
        option: its name in `data.targets`; "" where no row of a table can have such a target.
        task: the choice of `task` that trains on it.
    """

    option: str
    task: str

    CLASS = "a class", "class", "single_label"
    LABELS = "labels", "labels", "multi_label"
    VALUES = "values", "values", "regression"
    SEQUENCE = "a sequence", "", "sequence"

    def __new__(cls, value: str, option: str, task: str) -> TargetKind:
        kind = str.__new__(cls, value)
        kind._value_, kind.option, kind.task = value, option, task
        return kind

    @classmethod
    def options(cls) -> dict[str, TargetKind]:
        """The kinds that a row can have, by their names in `data.targets`."""
        return {kind.option: kind for kind in cls if kind.option}
