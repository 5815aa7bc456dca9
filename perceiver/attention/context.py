"""What is attended to, before anything is projected or even joined to one tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from perceiver.attention.normalisers.normaliser import widen
from perceiver.ops.checks import check_floats, check_shape
from perceiver.ops.matmul import without_autocast
from perceiver.ops.recompute import recomputable, saves_elsewhere
from perceiver.shapes import Bool, Float
from perceiver.types import Segment, joined_mask

T = TypeVar("T")

# Places whose codes are looked at together: codes of a long axis are large.
PLACES = 1 << 13


class Scaled(NamedTuple):
    """A segment's normalised tokens, position codes left where they are.

    The LayerNorm of token m without its affine is ρ_m (x_m − μ_m): one factor and one shift a
    token, which need sums over the parts of x_m only.

    Args:
        content: (b, m, p + 3): ρ u, −ρ μ, ρ, and 1 on tokens that may be attended to, else 0. All
            are 0 on masked tokens.
        rho: (b, m), 0 on masked tokens.
    """

    content: Float[Tensor, "b m k"]
    rho: Float[Tensor, "b m"]


class Context:
    """Segments under a LayerNorm: kernels take from it what they need.

    Most want one dense tensor (`tokens`); the folded kernels want the segments as they are. Either
    is computed once, however many cross-attends of the same weights read it.

    Args:
        segments: of one width; their tokens in this order are the keys.
        norm: LayerNorm of the tokens; None = none.
        mask: (b, m) bool, True = may be attended to; None = the masks of the segments.

    Raises:
        ValueError: for segments of different numbers of examples or widths, parts of a segment
            that do not fit each other, or a mask of another shape.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        norm: nn.LayerNorm | None = None,
        mask: Bool[Tensor, "b m"] | None = None,
    ) -> None:
        self.segments, self.norm = tuple(segments), norm
        check_segments(self.segments, norm)
        self.mask = joined_mask(self.segments) if mask is None else mask
        if mask is not None:
            check_mask("the mask of a context", mask, self.shape[:2])
        self._known: dict[Hashable, object] = {}

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returned the first time that `key` was asked for, in this mode.

        Results with a gradient are not those without, nor those of autocast those of none. A
        checkpoint's second forward pass has to do what the first one did: it finds nothing.
        """
        if saves_elsewhere():
            return make()
        mode = _mode(self.segments[0].content.device.type)
        if (key, mode) not in self._known:
            self._known[key, mode] = make()
        return self._known[key, mode]  # type: ignore[return-value]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Examples, tokens, channels."""
        content = [segment.content for segment in self.segments]
        return len(content[0]), sum(part.shape[1] for part in content), self.segments[0].channels

    def tokens(self) -> Float[Tensor, "b m c"]:
        """All tokens, dense and normalised."""
        return self.once("tokens", self._join)

    def _join(self) -> Tensor:
        dense = [segment.dense() for segment in self.segments]
        tokens = torch.cat(dense, dim=1) if len(dense) > 1 else dense[0]
        return tokens if self.norm is None else recomputable(self.norm, tokens)

    def joined(self) -> Context:
        """The same as one segment without structure."""
        return self.once("joined", lambda: Context([Segment(self.tokens())], mask=self.mask))

    def scaled(self) -> list[tuple[Segment, Scaled]]:
        """Each segment with its normalised tokens."""
        with without_autocast(self.segments[0].content.device):
            return self.once("scaled", self._scale)

    def _scale(self) -> list[tuple[Segment, Scaled]]:
        sizes = [segment.content.shape[1] for segment in self.segments]
        masks = [None] * len(sizes) if self.mask is None else self.mask.split(sizes, dim=1)
        eps = None if self.norm is None else self.norm.eps
        return [
            (segment, scale(segment, eps, mask))
            for segment, mask in zip(self.segments, masks, strict=True)
        ]


def _mode(device: str) -> tuple[object, ...]:
    """What results depend on beside their arguments; one and the same within a graph."""
    if torch.compiler.is_compiling():
        return ()
    is_cast = device != "meta" and torch.is_autocast_enabled(device)
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_autocast_dtype(device) if is_cast else None,
    )


def check_mask(name: str, mask: Tensor, shape: Sequence[int]) -> None:
    """Raises ValueError for a mask that is not boolean, or of another shape."""
    check_shape(name, mask, *shape)
    if mask.dtype is not torch.bool:
        raise ValueError(f"{name} is {mask.dtype}; give booleans, True = may attend")


def check_context(context: Tensor | Context, mask: object, width: int) -> None:
    """Raises ValueError for a context that is not `width` wide, or segments with a second mask."""
    if not isinstance(context, Context):
        check_shape("context", context, "batch", "length", width)
        check_floats("context", context)
    elif mask is not None:
        raise ValueError("a context of segments brings its own mask: leave mask= out")
    elif context.shape[-1] != width:
        raise ValueError(f"context has segments of width {context.shape[-1]}; expected {width}")


def one_masked_key(context: Tensor | Context) -> tuple[Tensor, Bool[Tensor, "b 1"]]:
    """A context of no keys as one key that nobody may attend to, since no keys have no largest."""
    like = context if isinstance(context, Tensor) else context.segments[0].content
    b, _, width = context.shape
    return like.new_zeros(b, 1, width), like.new_zeros(b, 1, dtype=torch.bool)


def check_segments(segments: Sequence[Segment], norm: nn.LayerNorm | None) -> None:
    """Raises ValueError for segments that make no one context."""
    if not segments:
        raise ValueError("a context has no segments: give it one or more")
    batch: int | str = "b"
    channels = segments[0].channels
    for index, segment in enumerate(segments):
        name = f"segment {index} of a context"
        check_shape(f"the content of {name}", segment.content, batch, "tokens", "c")
        batch, m, _ = segment.content.shape
        for code in segment.axes:
            check_shape(f"a position code of {name}", code, "length", "c")
            if code.shape[1] == 0:
                raise ValueError(f"{name} has a position code without channels: leave it out")
        lengths = [code.shape[0] for code in segment.axes]
        if lengths and math.prod(lengths) != m:
            raise ValueError(f"{name} has position codes of a grid {lengths} for {m} tokens")
        if segment.constant is not None:
            check_shape(f"the constant of {name}", segment.constant, "c")
        if segment.mask is not None:
            check_mask(f"the mask of {name}", segment.mask, (batch, m))
        if segment.channels != channels:
            raise ValueError(
                f"{name} is {segment.channels} wide and segment 0 {channels}: bring them to one "
                "width, with a fusion say"
            )
    if norm is not None and norm.normalized_shape != (channels,):
        raise ValueError(
            f"the norm of a context is {norm.normalized_shape[0]} wide and its segments {channels}"
        )


def _moments(content: Tensor, segment: Segment) -> list[tuple[int, Tensor, Tensor]]:
    """(channels, mean, variance) of the parts of every token; means broadcast to (b, m)."""
    variance, mean = _var_mean(content)
    moments = [(content.shape[-1], mean, variance)]
    lengths = [code.shape[0] for code in segment.axes]
    for axis, code in enumerate(segment.axes):
        view = [1] * axis + [lengths[axis]] + [1] * (len(lengths) - axis - 1)
        found = _var_mean(widen(code))
        variance, mean = (x.view(view).expand(lengths).reshape(1, -1) for x in found)
        moments.append((code.shape[-1], mean, variance))
    if segment.constant is not None and segment.constant.numel():
        variance, mean = _var_mean(widen(segment.constant)[None])
        moments.append((segment.constant.shape[0], mean, variance))
    return moments


def _var_mean(values: Float[Tensor, "*places c"]) -> tuple[Tensor, Tensor]:
    """Variance and mean of the last dimension, as products: quicker than sums of a few numbers."""
    average = values.new_full((values.shape[-1],), 1 / values.shape[-1])
    mean = values @ average
    pieces = zip(values.split(PLACES, -2), mean.split(PLACES, -1), strict=True)
    variance = [(x - m[..., None]).square() @ average for x, m in pieces]
    return variance[0] if len(variance) == 1 else torch.cat(variance, -1), mean


def _weighted(weights: Sequence[int], values: Sequence[Tensor]) -> Tensor:
    total = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        total = total + weight * value
    return total


def scale(segment: Segment, eps: float | None, mask: Bool[Tensor, "b m"] | None) -> Scaled:
    """Normalise the tokens of a segment without joining their parts.

    The variance of a token is that within its parts plus that between their means, so nothing
    cancels.

    Args:
        segment: the tokens.
        eps: of the LayerNorm; None = the tokens as they are, μ = 0 and ρ = 1.
        mask: (b, m), True = may be attended to.
    """
    content = widen(segment.content)
    if mask is not None:
        content = content.masked_fill(~mask[..., None], 0.0)
    like = content[..., 0]
    if eps is None:
        mean, rho = torch.zeros_like(like), torch.ones_like(like)
    else:
        widths, means, variances = zip(*_moments(content, segment), strict=True)
        mean = _weighted(widths, means) / segment.channels
        between = [(part - mean).square() for part in means]
        spread = _weighted(widths, variances) + _weighted(widths, between)
        rho = torch.rsqrt(spread / segment.channels + eps)
    keep = torch.ones_like(like)
    if mask is not None:
        mean, rho = mean.masked_fill(~mask, 0.0), rho.masked_fill(~mask, 0.0)
        keep = mask.to(like.dtype)
    scalars = torch.stack([-rho * mean, rho, keep], -1)
    return Scaled(torch.cat([content * rho[..., None], scalars], -1), rho)


def as_context(context: Tensor, mask: Tensor | None) -> Context:
    """A dense tensor (b, k, c) with a mask that broadcasts to (b, 1, 1, k), as a context."""
    keys = None if mask is None else mask[:, 0, 0].expand(context.shape[0], -1)
    return Context([Segment(context)], mask=keys)
