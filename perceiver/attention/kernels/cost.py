"""What an attention costs in each form, so that the cheapest can be chosen before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from perceiver.attention.context import Context
from perceiver.attention.heads.qkv import Heads
from perceiver.attention.kernels.blocked import pays
from perceiver.attention.kernels.structured_tokens import CHUNK_LINES
from perceiver.ops import matmul as products
from perceiver.types import Segment

# Numbers that a form may hold beside its arguments before a leaner one is preferred: 1 GiB.
ROOMY = 1 << 28
# Times that differ by less are about the same: the rates are no better than that.
ABOUT = 1.1
# Scores from which those of the dense kernel leave the cache.
CACHED_SCORES = 1 << 22


class Part(NamedTuple):
    """The sizes of a segment whose positions stay apart.

    Args:
        tokens: how many it has.
        channels: of their content.
        code: channels of the position code of its one axis; 0 if it has none, or a grid.
        columns: of its grid; 0 if it has none.
    """

    tokens: int
    channels: int
    code: int
    columns: int

    @property
    def width(self) -> int:
        """Channels that the product for a score has, and three scalars beside."""
        return self.channels + 3 + (CHUNK_LINES if self.columns else self.code)


@dataclass(frozen=True)
class Work:
    """The sizes of an attention.

    Args:
        batch, heads, queries, keys: b, h, q, k.
        channels: c, width of the context.
        projected: channels of all keys and values, 0 if they are the context itself.
        widths: of a query and of a value, of one head.
        segments: of the context; empty if it is a tensor.
        is_training: whether a backward pass follows.
        tokens_learn: whether it goes on into the context.
        is_half: whether large products run in half precision.
        is_compiled: whether passes over the scores are fused.
    """

    batch: int
    heads: int
    queries: int
    keys: int
    channels: int
    projected: int
    widths: tuple[int, int]
    segments: tuple[Part, ...]
    is_training: bool
    tokens_learn: bool
    is_half: bool
    is_compiled: bool = False

    @property
    def scores(self) -> int:
        return self.batch * self.heads * self.queries * self.keys


def work(query: Tensor, context: Tensor | Context, heads: Heads) -> Work:
    """The sizes of the attention of a query (b, q, e) over a context."""
    b, keys, channels = context.shape
    segments = context.segments if isinstance(context, Context) else ()
    device, dtype = query.device.type, query.dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    is_training = torch.is_grad_enabled()
    parts = [context] if isinstance(context, Tensor) else []
    for segment in segments:
        parts += [
            part for part in (segment.content, segment.constant, *segment.axes) if part is not None
        ]
    return Work(
        batch=b,
        heads=heads.num_heads,
        queries=query.shape[1],
        keys=keys,
        channels=channels,
        projected=heads.num_projected,
        widths=(heads.query_width, heads.value_width),
        segments=tuple(_part(segment) for segment in segments),
        is_training=is_training,
        tokens_learn=is_training and any(part.requires_grad for part in parts),
        is_half=dtype.itemsize < 4,
        is_compiled=torch.compiler.is_compiling(),
    )


def _part(segment: Segment) -> Part:
    _, tokens, channels = segment.content.shape
    if len(segment.axes) == 1:
        return Part(tokens, channels, code=segment.axes[0].shape[1], columns=0)
    return Part(tokens, channels, 0, segment.axes[-1].shape[0] if segment.axes else 0)


_Rates = tuple[float, float, float, float, float]

# Nanoseconds on the two cores of a server, by least squares over 24 attentions: of a product in a
# projection, of a product of the scores, of a score, of a channel of a token, and of the call. Only
# their ratios matter; tests/attention/kernels/test_cost.py holds them to account. Keys: is it
# training, is it half precision. Matrix products ran at 350 GFLOP/s in fp32 and 1,300 in bf16.
_DENSE = {
    (False, False): (6.4e-3, 8.5e-3, 2.2, 0.5, 0.8e6),
    (True, False): (2.0e-2, 2.5e-2, 6.0, 2.9, 2.1e6),
    (False, True): (1.6e-3, 4.6e-3, 2.2, 0.5, 1.2e6),
    (True, True): (5.7e-3, 9.2e-3, 6.0, 2.6, 3.2e6),
}
_SDPA = {
    (False, False): (6.6e-3, 1.05e-2, 0.45, 0.9, 0.65e6),
    (True, False): (2.0e-2, 4.0e-2, 1.0, 4.4, 1.8e6),
    (False, True): (1.6e-3, 6.0e-3, 0.35, 1.5, 1.0e6),
    (True, True): (6.0e-3, 1.7e-2, 2.9, 3.0, 3.3e6),
}
# Of half precision without tiles, at 980 GFLOP/s: torch's fused kernel leaves half of that unused.
_DENSE_IN_VECTORS: dict[bool, _Rates] = {
    False: (2.8e-3, 8.8e-3, 1.2, 0.4, 1.2e6),
    True: (8.8e-3, 1.8e-2, 2.8, 2.0, 2.2e6),
}
_SDPA_IN_VECTORS: dict[bool, _Rates] = {
    False: (2.9e-3, 1.4e-2, 0.5, 1.3, 0.9e6),
    True: (9.9e-3, 4.4e-2, 2.0, 1.5, 0.6e6),
}
# Of a product of the scores, of a score, of a channel of a token, of the call.
_FOLDED = {
    False: (9.7e-3, 0.3, 1.6, 1.4e6),
    True: (2.2e-2, 1.6, 6.0, 3.3e6),
}
# What passes over dense scores cost where torch.compile fuses them, as a part of the cost else.
_FUSED_PASSES = 0.7
# What a product of dense scores costs more where the other forms have theirs made by oneDNN.
_BY_MKL = 2.0
# What a product costs more if the tokens learn; what a channel of theirs costs more in parts, and
# once more if it learns; of a grid, what a score costs more.
_TOKENS_LEARN, _PARTS, _PARTS_LEARN, _GRID = 1.5e-2, 0.15, 2.5, (0.5, 1.4)
# SDPA's kernel begins anew for every head of every example: nanoseconds, in inference and training.
_BEGINNING = (1e3, 2.7e3)
# SDPA's backward pass in half precision packs every head of every example: nanoseconds of each.
_HALF_BACKWARD = 6e4


def _rates(
    rates: dict[tuple[bool, bool], _Rates], in_vectors: dict[bool, _Rates], work: Work
) -> _Rates:
    if work.is_half and not products.HAS_TILES:
        return in_vectors[work.is_training]
    return rates[work.is_training, work.is_half]


def _dense(work: Work) -> float:
    product, score_product, score, channel, call = _rates(_DENSE, _DENSE_IN_VECTORS, work)
    if not work.is_half and products.onednn_multiplies_batches():
        score_product *= _BY_MKL
    score = score if work.scores > CACHED_SCORES else score / 2
    score *= _FUSED_PASSES if work.is_compiled else 1.0
    return (
        product * work.batch * work.keys * work.channels * work.projected
        + score_product * work.scores * sum(work.widths)
        + score * work.scores
        + channel * work.batch * work.keys * work.channels
        + call
    )


def _sdpa(work: Work) -> float:
    product, score_product, score, channel, call = _rates(_SDPA, _SDPA_IN_VECTORS, work)
    # Torch's kernel pads heads to one width, ours does not.
    sizes = work.heads, work.queries, work.keys
    unpadded = pays(*sizes, work.widths, is_half=work.is_half)
    width = sum(work.widths) if unpadded else 2 * max(work.widths)
    time = (
        product * work.batch * work.keys * work.channels * work.projected
        + score_product * work.scores * width
        + score * work.scores
        + channel * work.batch * work.keys * work.channels
        + _BEGINNING[work.is_training] * work.batch * work.heads
        + call
    )
    if work.is_training and work.is_half:
        time += _HALF_BACKWARD * work.batch * work.heads
    return time


def _structured(work: Work, tokens: int, channels: int, width: int, is_grid: bool) -> float:
    product, score, channel, call = _FOLDED[work.is_training]
    scores = work.batch * work.heads * work.queries * tokens
    if work.tokens_learn:
        product += _TOKENS_LEARN
    if is_grid:
        score += _GRID[work.is_training]
    return (
        2 * product * scores * width
        + score * scores
        + channel * work.batch * tokens * channels
        + call
    )


def _folded(work: Work) -> float:
    return _structured(work, work.keys, work.channels, work.channels + 3, False)


def _separable(work: Work) -> float:
    # Each segment is a call, with sums over its parts besides.
    summing = _PARTS + _PARTS_LEARN * work.tokens_learn
    return sum(
        _structured(work, part.tokens, part.channels + 3, part.width, part.columns > 0)
        + summing * work.batch * part.tokens * part.channels
        + 0.5 * _FOLDED[work.is_training][3]
        for part in work.segments
    )


def _numbers(form: str, work: Work) -> int:
    """Numbers that a form holds beside its arguments."""
    tokens = work.batch * work.keys
    if form == "separable":
        return work.batch * sum(2 * p.tokens * (p.channels + 3) for p in work.segments)
    joined = 2 * work.channels if work.segments else 0
    if form == "folded":
        return tokens * (joined + work.channels)
    held = tokens * (joined + work.projected)
    return held + 2 * work.scores if form == "dense" else held


TIMES = {"sdpa": _sdpa, "dense": _dense, "folded": _folded, "separable": _separable}


def times(work: Work) -> dict[str, float]:
    """Nanoseconds that each form would take on the machine of the rates."""
    return {
        form: time(work) for form, time in TIMES.items() if form != "separable" or work.segments
    }


def cheapest(
    work: Work, forms: list[str], times: Mapping[str, Callable[[Work], float]] = TIMES
) -> str:
    """The leanest of the forms that are about as fast as the fastest.

    One that is too large is passed over; if all are, the leanest is taken.

    Args:
        work: the sizes.
        forms: to choose from.
        times: what each takes on the machine at hand.
    """
    seconds = {form: times[form](work) for form in forms}
    numbers = {form: _numbers(form, work) for form in forms}
    roomy = [form for form in forms if numbers[form] <= ROOMY]
    if not roomy:
        return min(forms, key=numbers.__getitem__)
    fastest = min(seconds[form] for form in roomy)
    alike = [form for form in roomy if seconds[form] <= ABOUT * fastest]
    return min(alike, key=lambda form: (numbers[form], seconds[form]))
