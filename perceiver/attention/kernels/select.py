"""Which kernel serves an attention: by capability first, then by size and device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from perceiver.attention.context import Context
from perceiver.attention.heads.qkv import Heads
from perceiver.attention.kernels import roofline
from perceiver.attention.kernels.cost import cheapest, work
from perceiver.attention.normalisers import Normaliser, Reinforce, Softmax, Sum
from perceiver.attention.patterns import Causal, Full, Pattern
from perceiver.attention.patterns.luong_local import LuongLocal
from perceiver.attention.positions.position import NoPosition, Position
from perceiver.attention.scores.location import LocationAware
from perceiver.attention.scores.pairwise import FeatureDot, Score
from perceiver.ops.matmul import differs_by_function

KERNELS = ("auto", "dense", "sdpa", "flex", "chunked", "linear", "folded", "separable")

# Scores (times their hidden width) beyond which the dense kernel would fill the memory.
LARGE = 1 << 27

# Pairs of queries and keys from which FlexAttention's skipped blocks outweigh finding them.
MANY_PAIRS = 1 << 22
# The narrowest heads that FlexAttention takes on a GPU, and the widest that it has room for.
FLEX_WIDTHS = range(16, 257)


@dataclass(frozen=True)
class Request:
    """What is asked of a kernel, before anything is projected.

    Args:
        score, position, pattern, normaliser, heads: the axes; `pattern` includes one given with the
            call.
        mask: bool (#b, #h, #q, #k), or None.
        softcap: c, or None.
        dropout: probability of dropping a weight.
        need_weights: whether the weights are asked for.
        numbers: b · h · q · k · the numbers that a score takes.
        device: type of the device, "cpu" or "cuda" say.
        dtype: of the queries.
        pairs: q · k.
        query, context: what comes in, for the forms that project neither keys nor values.
        has_bias: whether the caller adds something to the scores.
    """

    score: Score
    position: Position
    pattern: Pattern | LuongLocal
    normaliser: Normaliser | Any
    heads: Heads
    mask: Tensor | None = None
    softcap: float | None = None
    dropout: float = 0.0
    need_weights: bool = False
    numbers: int = 0
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    pairs: int = 0
    query: Tensor | None = None
    context: Tensor | Context | None = None
    has_bias: bool = False


def _name(part: object) -> str:
    return getattr(part, "__name__", type(part).__name__)


def _unlike_softmax_of_a_dot(request: Request) -> str:
    """Why fused kernels cannot serve, naming the axis; empty if they can."""
    if request.need_weights:
        return "weights: it never forms them (need_weights=True)"
    if not request.score.folds:
        return f"score: {_name(request.score)} is not a dot product"
    if not isinstance(request.normaliser, Softmax):
        return f"normaliser: {_name(request.normaliser)} is not softmax"
    if request.position.has_read:
        return f"position: {_name(request.position)} adds a term to the values"
    if isinstance(request.pattern, LuongLocal):
        return "pattern: LuongLocal multiplies the weights"
    if request.heads.mixes:
        return "heads: talking heads mix weights"
    return ""


def _sdpa(request: Request) -> str:
    obstacle = _unlike_softmax_of_a_dot(request)
    if obstacle:
        return obstacle
    if request.softcap is not None:
        return "score: a softcap bends the scores"
    if request.normaliser.has_sink:
        return "normaliser: softmax with a sink needs the log-sum-exp"
    return ""


def _flex(request: Request) -> str:
    obstacle = _unlike_softmax_of_a_dot(request)
    if not obstacle and request.dropout > 0:
        return "dropout: it has none on the weights"
    return obstacle


def _chunked(request: Request) -> str:
    if request.need_weights:
        return "weights: it never holds all of them (need_weights=True)"
    if isinstance(request.score, LocationAware):
        return "score: LocationAware takes the queries one after the other"
    if isinstance(request.normaliser, Reinforce):
        return "normaliser: Reinforce draws once an example, not once a chunk"
    return ""


def _linear(request: Request) -> str:
    if request.need_weights:
        return "weights: it never forms them (need_weights=True)"
    if not isinstance(request.score, FeatureDot):
        return f"score: {_name(request.score)} is not feature_dot"
    if not isinstance(request.normaliser, Sum):
        return f"normaliser: {_name(request.normaliser)} is not sum"
    if request.position.has_bias or request.position.has_read:
        return f"position: {_name(request.position)} adds to scores or values"
    if not isinstance(request.pattern, (Full, Causal)):
        return f"pattern: {_name(request.pattern)} is neither full nor causal"
    if request.mask is not None and request.mask.shape[2] != 1:
        return "mask: it differs from query to query, and keys are summed once for all"
    if request.has_bias:
        return "bias: there are no scores to add it to"
    if request.heads.mixes or request.heads.extra_keys:
        return "heads: talking heads and registers need scores"
    if request.softcap is not None:
        return "score: a softcap bends the scores"
    if request.dropout > 0:
        return "dropout: there are no weights to drop"
    return ""


def _skipping_pays(request: Request) -> bool:
    """Whether FlexAttention skips most of the work, on a device that it is made for.

    Inside a graph that is being traced it would be compiled with everything around it: left alone.
    """
    return (
        request.device == "cuda"
        and request.dtype != torch.float64  # it sums in float32
        and isinstance(request.pattern, Pattern)
        and request.pattern.is_sparse
        and request.pairs >= MANY_PAIRS
        and not (request.position.has_bias or request.has_bias)
        and request.heads.query_width in FLEX_WIDTHS
        and request.heads.value_width in FLEX_WIDTHS
        and not torch.compiler.is_compiling()
        and not _flex(request)
    )


def _folded(request: Request) -> str:
    if request.need_weights:
        return "weights: it never holds all of them (need_weights=True)"
    if not request.score.is_linear:
        return f"score: {_name(request.score)} is not linear in the keys"
    if not isinstance(request.normaliser, Softmax):
        return f"normaliser: {_name(request.normaliser)} is not softmax"
    if not isinstance(request.position, NoPosition):
        return f"position: {_name(request.position)} tells keys apart after their projection"
    if not isinstance(request.pattern, Full):
        return f"pattern: {_name(request.pattern)} is not full"
    if not request.heads.folds:
        return f"heads: what {_name(request.heads)} makes keys of is not linear in the context"
    if request.mask is not None and request.mask.shape[1:3] != (1, 1):
        return "mask: it differs from query to query, and tokens are masked for all at once"
    if request.has_bias:
        return "bias: tokens are scored for all queries and heads at once"
    if request.softcap is not None:
        return "score: a softcap bends the scores"
    if request.dropout > 0:
        return "dropout: it never holds the weights"
    return ""


def _separable(request: Request) -> str:
    if isinstance(request.context, Tensor):
        return "context: a tensor has no positions beside its content; use kernel=folded"
    return _folded(request)


OBSTACLES = {
    "sdpa": _sdpa,
    "flex": _flex,
    "chunked": _chunked,
    "linear": _linear,
    "folded": _folded,
    "separable": _separable,
}


def _cheapest(request: Request) -> str:
    """The form of softmax(q·k) v that takes least time here."""
    query, context = request.query, request.context
    # Exported programs should run without this package; other devices' rates are not known.
    if query is None or context is None or torch.compiler.is_exporting():
        return "sdpa"
    if request.device not in ("cpu", "cuda") or isinstance(request.pattern, Causal):
        return "sdpa"
    if differs_by_function():  # neither our operators nor torch's fused ones have all its rules
        return "dense"
    folding = [form for form in ("folded", "separable") if not OBSTACLES[form](request)]
    sizes = work(query, context, request.heads)
    if request.device == "cuda":
        return cheapest(sizes, ["sdpa", *folding], roofline.TIMES)
    forms = ["sdpa"] if request.numbers > LARGE else ["sdpa", "dense"]
    return cheapest(sizes, forms + folding)


def check_kernel(kernel: str, request: Request) -> None:
    """Raises ValueError if the kernel that is asked for cannot compute this attention."""
    obstacle = OBSTACLES[kernel](request) if kernel in OBSTACLES else ""
    if obstacle:
        raise ValueError(f"kernel={kernel} refuses this attention; {obstacle}; use kernel=auto")


def select_kernel(kernel: str, request: Request) -> str:
    """The kernel to run: the one asked for, or for "auto" the fastest that is exact.

    Raises:
        ValueError: if the kernel that is asked for cannot compute this attention.
    """
    check_kernel(kernel, request)
    if kernel != "auto":
        return kernel
    if _skipping_pays(request):
        return "flex"
    # Attention dropout sends SDPA to a path several times slower than the dense kernel.
    if request.dropout == 0 and not _sdpa(request):
        return _cheapest(request)
    if not _linear(request):
        return "linear"
    return "chunked" if request.numbers > LARGE and not _chunked(request) else "dense"
