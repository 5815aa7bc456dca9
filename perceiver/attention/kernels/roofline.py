"""What an attention costs in each form on a GPU: calculated, not yet measured.

The rates are a data sheet's, so a form other than torch's own must promise to be clearly faster to
be chosen. `benchmarks/gpu.py` times the forms; let its numbers replace these.
"""

from __future__ import annotations

from collections.abc import Callable

from perceiver.attention.kernels.cost import Part, Work
from perceiver.attention.kernels.structured_blocks import blocks
from perceiver.ops.matmul import rounds_float32

# Per second, of an H100 SXM: products (two operations each) in float32, TF32 and bfloat16; of
# elementwise float32 operations, 128 a clock on each of 132 multiprocessors at 1.75 GHz;
# exponentials, 16 a clock; bytes to and from memory.
PRODUCTS = {"fp32": 3.3e13, "tf32": 2.5e14, "bf16": 4.9e14}
OPERATIONS, EXPONENTIALS, BYTES = 3.0e13, 3.7e12, 3.3e12
# Seconds of launches around a form, forward; training takes three times as many.
SDPA_CALL, STRUCTURED_CALL = 5e-5, 2e-4
# How much faster on paper a form must be that was never timed.
MARGIN = 2.0
# Elementwise operations on a score: maximum, rescaling, splitting for TF32, sums over a grid.
SCORE_OPERATIONS = 16
# Passes over all scores in memory of the form in chunks, which serves wider tokens.
CHUNK_PASSES = 6


def _precision(work: Work) -> str:
    if work.is_half:
        return "bf16"
    return "tf32" if rounds_float32() else "fp32"


def _sdpa(work: Work) -> float:
    """Projections to keys and values, then one fused pass over them."""
    rate, itemsize = PRODUCTS[_precision(work)], 2 if work.is_half else 4
    tokens = work.batch * work.keys
    products = tokens * work.channels * work.projected + 2 * work.scores * max(work.widths)
    # Joined and normalised tokens are written and read, keys and values as well.
    moved = 2 * tokens * (2 * 4 * work.channels + itemsize * work.projected)
    passes = 3 if work.is_training else 1
    time = max(products / rate, work.scores / EXPONENTIALS, moved / BYTES)
    return passes * (time + SDPA_CALL)


def _structured(work: Work, part: Part) -> float:
    """A pass over content and positions that stay apart, in float32 whatever queries are in."""
    scores = work.batch * work.heads * work.queries * part.tokens
    channels = part.channels + 3
    moved = 2 * 4 * work.batch * part.tokens * channels
    passes = 1.0
    if work.is_training:
        passes += 3.5 if work.tokens_learn else 1.5
    if cut := blocks(channels, part.code, part.columns):
        products = 2 * scores * (cut.x[1] + (cut.y[1] if cut.y[0] else 0))
        # Three products in TF32 stand for one in float32.
        multiply = products / PRODUCTS["tf32"] * (1 if rounds_float32() else 3)
        time = max(scores * SCORE_OPERATIONS / OPERATIONS, scores / EXPONENTIALS) + multiply
    else:
        rate = PRODUCTS["tf32" if rounds_float32() else "fp32"]
        time = 2 * scores * part.width / rate + 4 * CHUNK_PASSES * scores / BYTES
    return passes * max(time, moved / BYTES) + (3 if work.is_training else 1) * STRUCTURED_CALL


def _folded(work: Work) -> float:
    return MARGIN * _structured(work, Part(work.keys, work.channels, code=0, columns=0))


def _separable(work: Work) -> float:
    return MARGIN * sum(_structured(work, part) for part in work.segments)


TIMES: dict[str, Callable[[Work], float]] = {
    "sdpa": _sdpa,
    "folded": _folded,
    "separable": _separable,
}
