"""What audio encoders share: clips of any length, each read as if it came alone."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from perceiver.adapters.adapter import check_mask
from perceiver.adapters.pretrained.adapter import PretrainedAdapter


class PretrainedAudioAdapter(PretrainedAdapter):
    """Base of audio encoders: mono waveforms (b, samples) → tokens over time.

    Clips of one length are read together, others apart: many encoders normalise over time, and
    padding would change what they say of a clip.

    Args:
        sample_rate: samples a second, of the clips.
        rate: samples a second that the encoder was trained on.
        min_samples: shorter clips are filled up with silence.
        **common: of every pretrained adapter.

    Raises:
        ValueError: for clips of another rate than the encoder's.
    """

    kind: ClassVar[str] = "audio"

    def __init__(self, *, sample_rate: int, rate: int, min_samples: int, **common: Any) -> None:
        if sample_rate != rate:
            raise ValueError(
                f"the encoder hears {rate:,} samples a second, and the clips have {sample_rate:,}: "
                f"set data.audio.sample_rate={rate}"
            )
        super().__init__(**common)
        self.min_samples = min_samples

    def check(self, values: Tensor, mask: Tensor | None) -> None:
        if values.dim() != 2 or not values.is_floating_point():
            raise ValueError(
                f"audio has shape {tuple(values.shape)} and type {values.dtype}; expected a mono "
                "floating-point waveform (batch, samples)"
            )
        check_mask(mask, values.shape)

    def cut(self, values: Tensor, mask: Tensor) -> Tensor:
        return values[: int(mask.sum())]

    def encode(self, examples: Sequence[Tensor]) -> list[Tensor]:
        alike = defaultdict[int, list[int]](list)
        for number, clip in enumerate(examples):
            alike[len(clip)].append(number)
        found: dict[int, Tensor] = {}
        for length, group in alike.items():
            clips = torch.stack([examples[number] for number in group])
            clips = F.pad(clips, (0, max(0, self.min_samples - length)))
            found |= zip(group, self.hear(clips), strict=True)
        return [found[number] for number in range(len(examples))]

    @abstractmethod
    def hear(self, clips: Tensor) -> Tensor:
        """The tokens (b, n, c) of whole clips (b, samples) of one length."""


def conv_length(samples: int, kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Places that convolutions without padding leave of so many samples."""
    for kernel, stride in zip(kernels, strides, strict=True):
        samples = (samples - kernel) // stride + 1
    return samples


def conv_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Samples that one place at the end of convolutions without padding sees."""
    field = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        field = (field - 1) * stride + kernel
    return field
