"""Where an input element stands: one code per place along each axis of its grid."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import guard_scalar

from perceiver.ops.init import lecun_linear
from perceiver.shapes import Float


def fourier_features(
    coordinates: Float[Tensor, "... axes"], *, num_bands: int, max_resolution: Sequence[int]
) -> Float[Tensor, "... features"]:
    """[x, sin(π f_k x), cos(π f_k x)] of d coordinates in [−1, 1]: d(2K+1) channels.

    The frequencies f_k of an axis run linearly from 1 to μ/2, the Nyquist frequency of μ places.
    First the coordinates, then all sines, then all cosines; within either, all bands of the first
    axis come first. Jaegle et al. 2021, 3.2 and appendix D.

    Args:
        coordinates: of each element along each axis.
        num_bands: frequencies an axis, K.
        max_resolution: μ of each axis.
    """
    bands = torch.stack(
        [
            torch.linspace(1.0, size / 2, num_bands, dtype=coordinates.dtype)
            for size in max_resolution
        ]
    ).to(coordinates.device)
    angles = (math.pi * coordinates[..., None] * bands).flatten(-2)
    return torch.cat([coordinates, angles.sin(), angles.cos()], dim=-1)


class Positions(nn.Module, ABC):
    """Base of position codes for elements on a grid.

    Every kind is made with `shape=`, the largest grid that is meant to come. `dim` is the width
    that the codes of all axes have together. `add` says whether codes are added to the content
    (which then has width `dim`) or concatenated to it. `is_relative` says whether a place's code
    depends on how large the input is, so that padding it would change the code.
    """

    dim: int
    add: bool = False
    is_relative: bool = False

    @abstractmethod
    def forward(self, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
        """The codes of a grid: per axis (length, code), or one (product of lengths, code)."""


class ConstantPositions(Positions):
    """Base of codes without parameters: computed once for a grid, then kept.

    They are computed in float64, whatever the module's dtype: angles reach thousands, where half
    precision has lost the fraction and float32 four digits.
    """

    _like: Tensor  # empty; knows the module's dtype and device

    def __init__(self) -> None:
        super().__init__()
        self._cache: dict[tuple[object, ...], tuple[Tensor, ...]] = {}
        self.register_buffer("_like", torch.empty(0), persistent=False)

    @abstractmethod
    def places(self, axis: int, length: int) -> Float[Tensor, " length"]:
        """Where the elements of one axis stand, in float64 on the CPU."""

    @abstractmethod
    def code(self, axis: int, places: Float[Tensor, " n"]) -> Float[Tensor, "n code"]:
        """The codes of some places of one axis, in float64."""

    def _axis_codes(self, axis: int, length: int) -> Float[Tensor, "length code"]:
        # Piece by piece: of a long axis the float64 codes would take twice what is kept, and pieces
        # that are joined in the end as much again.
        pieces = self.places(axis, length).split(1 << 16)
        first = self.code(axis, pieces[0])
        codes = self._like.new_empty(length, first.shape[1])
        for rows, piece in zip(codes.split(1 << 16), pieces, strict=True):
            rows.copy_(first if piece is pieces[0] else self.code(axis, piece))
        return codes

    def forward(self, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
        if torch.compiler.is_compiling():  # a graph that is compiled holds for these lengths
            shape = tuple(int(guard_scalar(length)) for length in shape)
        return _codes(self, shape, self._like.device, self._like.dtype)


# A graph that is compiled takes them as they are; computed inside of one, they would be in memory
# that the next step of a CUDA graph writes over. (A function, because Dynamo would not guard `self`
# of a method.)
@torch.compiler.assume_constant_result
def _codes(
    positions: ConstantPositions, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """Those of a grid from the cache, where they are put if they are not there."""
    cache, key = positions._cache, (shape, device, dtype)
    if key not in cache:
        if len(cache) > 64:  # ragged inputs come in many lengths; keep memory bounded
            cache.clear()
        # The cache outlives a validation loop, and a context that sets the default device.
        with torch.inference_mode(False), torch.device("cpu"):
            codes = tuple(positions._axis_codes(*axis) for axis in enumerate(shape))
        if any(type(code) is not Tensor for code in codes):  # of a trace, without numbers
            return codes
        cache[key] = codes
    return cache[key]


class FourierPositions(ConstantPositions):
    """Fourier features of a grid, axis by axis.

    Coordinates run over [−1, 1] on the input itself ("crop coordinates": the paper's choice, image
    coordinates overfit). With `absolute` they run over [−1, 1] on the full grid instead, so that a
    place's code does not depend on how far a batch was padded: the choice for sequences of varying
    length. The one place of an axis of length 1 stands at 0.

    Args:
        shape: the full grid, one length an axis.
        num_bands: frequencies an axis, K.
        max_resolution: the resolution that the finest frequency resolves, μ, one number an axis;
            None = `shape`.
        absolute: coordinates on the full grid rather than on the input.

    Raises:
        ValueError: if `max_resolution` has other axes than `shape`; in `forward`, for a grid of
            other axes, or one longer than an absolute range.
    """

    def __init__(
        self,
        *,
        shape: Sequence[int],
        num_bands: int,
        max_resolution: Sequence[int] | None = None,
        absolute: bool = False,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.max_resolution = tuple(max_resolution or shape)
        if len(self.max_resolution) != len(self.shape):
            raise ValueError(
                f"max_resolution={list(self.max_resolution)} needs one number for each axis of "
                f"shape={list(self.shape)}"
            )
        self.num_bands = num_bands
        self.absolute, self.is_relative = absolute, not absolute
        self.dim = len(self.shape) * (2 * num_bands + 1)

    def forward(self, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
        if len(shape) != len(self.shape):
            raise ValueError(f"input of shape {shape} has other axes than positions {self.shape}")
        if not self.absolute:
            return super().forward(shape)
        for length, full in zip(shape, self.shape, strict=True):
            if length > full:
                raise ValueError(
                    f"input is {length} long but its positions end at {full}: "
                    "shorten the input or raise the adapter's maximum"
                )
        # Whatever its length, an input's codes are the first of those of the full grid.
        codes = super().forward(self.shape)
        if shape == self.shape:  # the tensors themselves, which stay constants of a compiled graph
            return codes
        return tuple(code[:length] for code, length in zip(codes, shape, strict=True))

    def places(self, axis: int, length: int) -> Float[Tensor, " length"]:
        if length == 1:
            return torch.zeros(1, dtype=torch.float64)
        return torch.linspace(-1.0, 1.0, length, dtype=torch.float64)

    def code(self, axis: int, places: Float[Tensor, " n"]) -> Float[Tensor, "n code"]:
        return fourier_features(
            places[:, None],
            num_bands=self.num_bands,
            max_resolution=self.max_resolution[axis : axis + 1],
        )


class LearnedPositions(Positions):
    """A table of learned codes, truncated-normal(0.02) as in the released Perceivers.

    Args:
        shape: the grid that the table covers; shorter inputs of one axis use its beginning.
        table_dim: width of a code.
        project_dim: width of a linear projection of the codes, None = none (Perceiver IO's
            ImageNet model projects 256 → 256).
        add: add the codes to the content rather than concatenate them.
        factored: one table an axis (codes concatenated, each `table_dim` wide) rather than one
            code for every place of the grid.

    Raises:
        ValueError: in `forward`, for an input that the table does not cover.
    """

    def __init__(
        self,
        *,
        shape: Sequence[int],
        table_dim: int,
        project_dim: int | None = None,
        add: bool = False,
        factored: bool = False,
    ) -> None:
        super().__init__()
        self.shape, self.add, self.factored = tuple(shape), add, factored
        lengths = self.shape if factored else (math.prod(self.shape),)
        self.tables = nn.ParameterList(torch.empty(length, table_dim) for length in lengths)
        for table in self.tables:
            nn.init.trunc_normal_(table, std=0.02, a=-0.04, b=0.04)
        self.project = lecun_linear(table_dim, project_dim) if project_dim else nn.Identity()
        self.dim = (project_dim or table_dim) * len(lengths)

    def forward(self, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
        covered = len(shape) == len(self.shape) and (
            all(length <= size for length, size in zip(shape, self.shape, strict=True))
            if self.factored or len(shape) == 1
            else shape == self.shape
        )
        if not covered:
            raise ValueError(f"input of shape {shape} is not covered by positions of {self.shape}")
        lengths = shape if self.factored else (math.prod(shape),)
        return tuple(
            self.project(table[:length]) for table, length in zip(self.tables, lengths, strict=True)
        )


class SinusoidalPositions(ConstantPositions):
    """The Transformer's sinusoids on one axis, added to the content (Vaswani et al. 2017, 3.5).

    Channels 2i and 2i + 1 of place t are sin(t / max_period^(2i/dim)) and the cosine of the same.

    Args:
        shape: one length; longer inputs are fine.
        dim: width of a code, even.
        max_period: bound on the wavelengths over 2π.

    Raises:
        ValueError: for an odd width, or a grid of more than one axis.
    """

    add = True

    def __init__(self, *, shape: Sequence[int], dim: int, max_period: float = 10_000.0) -> None:
        super().__init__()
        if dim % 2 or len(shape) != 1:
            raise ValueError(
                f"sinusoidal positions need an even width and one axis, got dim={dim} and "
                f"shape={list(shape)}"
            )
        self.dim, self.max_period = dim, max_period

    def forward(self, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
        if len(shape) != 1:
            raise ValueError(f"sinusoidal positions have one axis, input has shape {shape}")
        return super().forward(shape)

    def places(self, axis: int, length: int) -> Float[Tensor, " length"]:
        return torch.arange(length, dtype=torch.float64)

    def code(self, axis: int, places: Float[Tensor, " n"]) -> Float[Tensor, "n code"]:
        exponent = torch.arange(0, self.dim, 2, dtype=torch.float64) / self.dim
        angles = places[:, None] * self.max_period**-exponent
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)
