"""Output queries: what is asked of the latents, one output a query."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from perceiver.positions import Positions
from perceiver.shapes import Float
from perceiver.types import ByteArray, Segment


class Queries(nn.Module, ABC):
    """Base of what makes output queries (b, o, e) for a batch.

    `num_queries`: how many, o, at most. `dim`: their width, e. `asked`: modalities whose elements
    there is a query for each of, so that the byte array is needed.
    """

    num_queries: int
    dim: int
    asked: tuple[str, ...] = ()

    def check_inputs(self, modalities: Mapping[str, int], channels: int) -> None:
        """Raises ValueError for a byte array that lacks what is asked about; see `Decoder`."""
        if strange := [name for name in self.asked if name not in modalities]:
            raise ValueError(
                f"asks about {', '.join(strange)}, but the model reads {', '.join(modalities)}"
            )

    def segment(self, inputs: ByteArray | None) -> Segment:
        """The segment of the modality that is asked about.

        Raises:
            ValueError: the inputs lack it.
        """
        (name,) = self.asked
        if inputs is None or name not in inputs.segments:
            raise ValueError(
                f"the decoder answers for each element of {name}, which the inputs lack: give it, "
                "and in `present` that no example has it"
            )
        return inputs.segments[name]

    @abstractmethod
    def forward(self, batch_size: int, inputs: ByteArray | None = None) -> Float[Tensor, "#b o e"]:
        """The queries; a batch of 1 serves all examples, and is normed and projected once."""


class LearnedQueries(Queries):
    """Output queries that are learned and the same for every example.

    Args:
        num_queries: outputs, o.
        dim: width of a query, e.
    """

    def __init__(self, *, num_queries: int, dim: int) -> None:
        super().__init__()
        self.num_queries, self.dim = num_queries, dim
        self.queries = nn.Parameter(torch.empty(num_queries, dim))
        nn.init.trunc_normal_(self.queries, std=0.02, a=-0.04, b=0.04)

    def forward(self, batch_size: int, inputs: ByteArray | None = None) -> Float[Tensor, "#b o e"]:
        return self.queries[None]


class PositionalQueries(Queries):
    """One query for each place of a grid: its position code (Jaegle et al. 2022, 3.2).

    Made as the positions of an input are, they are the very codes that its elements have, or a
    table of their own where codes are learned.

    Args:
        shape: the largest grid that is meant to come, one length an axis.
        position: makes the position codes from shape=.
        modality: the modality whose grid of tokens is asked about, as long as it is in the batch;
            None = all places of `shape`, whatever comes.
    """

    def __init__(
        self,
        *,
        shape: Sequence[int],
        position: Callable[..., Positions],
        modality: str | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.asked = tuple(shape), () if modality is None else (modality,)
        self.position = position(shape=self.shape)
        self.num_queries, self.dim = math.prod(self.shape), self.position.dim

    def forward(self, batch_size: int, inputs: ByteArray | None = None) -> Float[Tensor, "#b o e"]:
        shape = self.segment(inputs).shape if self.asked else self.shape
        codes = self.position(shape)
        places = codes[0].new_empty(1, math.prod(shape), 0)
        return Segment(places, codes, shape=shape).dense()


class InputQueries(Queries):
    """One query for each token of a modality: the token, content and position (ibid., 3.2).

    Args:
        modality: whose tokens they are.
        num_queries: the most tokens that are meant to come.
        dim: width of the byte array.

    Raises:
        ValueError: in `check_inputs`, for a byte array of another width.
    """

    def __init__(self, *, modality: str, num_queries: int, dim: int) -> None:
        super().__init__()
        self.asked, self.num_queries, self.dim = (modality,), num_queries, dim

    def check_inputs(self, modalities: Mapping[str, int], channels: int) -> None:
        super().check_inputs(modalities, channels)
        if channels != self.dim:
            raise ValueError(f"dim={self.dim}, but the byte array is {channels} wide: set that")

    def forward(self, batch_size: int, inputs: ByteArray | None = None) -> Float[Tensor, "#b o e"]:
        return self.segment(inputs).dense()
