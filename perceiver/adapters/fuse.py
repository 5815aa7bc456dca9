"""Bringing the segments of several modalities to one width."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from perceiver.ops.init import lecun_linear
from perceiver.types import ByteArray, Segment


class Fusion(nn.Module, ABC):
    """Base of fusions: segments of several widths → a byte array of width `channels`."""

    channels: int

    @abstractmethod
    def fuse(self, name: str, segment: Segment) -> Segment:
        """The segment of modality `name` at the common width."""

    def forward(self, segments: Mapping[str, Segment]) -> ByteArray:
        return ByteArray({name: self.fuse(name, segments[name]) for name in sorted(segments)})


def _learned(dim: int) -> nn.Parameter:
    vector = nn.Parameter(torch.empty(dim))
    nn.init.trunc_normal_(vector, std=0.02, a=-0.04, b=0.04)
    return vector


class PaddingFusion(Fusion):
    """Each modality is padded with learned channels of its own to the widest one's width.

    The padding tells modalities apart as well: the papers' modality embedding (Jaegle et al. 2021,
    4.3; 2022, appendix G).

    Args:
        channels: modality → width of its segment.
        min_padding: learned channels that even the widest modality gets. 0 with one modality leaves
            its segment as it is.

    Raises:
        ValueError: for a negative `min_padding`.
    """

    def __init__(self, *, channels: Mapping[str, int], min_padding: int) -> None:
        super().__init__()
        if min_padding < 0:
            raise ValueError(f"min_padding={min_padding} must be 0 or more learned channels")
        self.channels = max(channels.values()) + min_padding
        self.padding = nn.ParameterDict(
            {
                name: _learned(self.channels - width)
                for name, width in sorted(channels.items())
                if width < self.channels
            }
        )

    def fuse(self, name: str, segment: Segment) -> Segment:
        if name not in self.padding:
            return segment
        padding: Tensor = self.padding[name]
        if segment.constant is not None:
            padding = torch.cat([segment.constant, padding])
        return replace(segment, constant=padding)


class ProjectionFusion(Fusion):
    """Each modality is projected to one width, and its learned embedding is added.

    Args:
        channels: modality → width of its segment.
        dim: the common width.
    """

    def __init__(self, *, channels: Mapping[str, int], dim: int) -> None:
        super().__init__()
        self.channels = dim
        self.projections = nn.ModuleDict(
            {name: lecun_linear(width, dim) for name, width in sorted(channels.items())}
        )
        self.embeddings = nn.ParameterDict({name: _learned(dim) for name in sorted(channels)})

    def fuse(self, name: str, segment: Segment) -> Segment:
        content: Tensor = self.projections[name](segment.dense()) + self.embeddings[name]
        return replace(segment, content=content, axes=(), constant=None)
