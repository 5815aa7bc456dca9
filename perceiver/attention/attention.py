"""The attention equation: heads → position → score → pattern → normaliser → read → merge."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceiver.attention.catalogue import build_member, build_pattern, check_all_options
from perceiver.attention.context import Context, as_context
from perceiver.attention.kernels import (
    KERNELS,
    Problem,
    Request,
    Result,
    check_kernel,
    chunked,
    dense,
    flex,
    folded,
    linear,
    sdpa,
    select_kernel,
)
from perceiver.attention.masks import (
    broadcast_bias,
    broadcast_mask,
    forbid_masked_nan,
    with_extra_keys,
)
from perceiver.attention.normalisers import Sum
from perceiver.attention.output import AttentionAux, AttentionOutput
from perceiver.attention.patterns import Causal, Full, Lengths, Pattern
from perceiver.attention.patterns.luong_local import LuongLocal, sentence_lengths
from perceiver.attention.scores.location import LocationAware
from perceiver.ops.checks import check_floats, check_shape, check_sizes


class Attention(nn.Module):
    """Attention of queries over a context: o = normaliser(score(q, k)) v, in heads.

    Self-attention is attention without a context. Each of the five axes is chosen by the name of a
    member, whose own options stand in `options` under that name; options of members that are not
    chosen are checked and left alone. In place of a name a factory may stand: a class or partial,
    called with those of the sizes `query_dim`, `key_dim`, `value_dim` (of a head), `num_heads` and
    `model_dim` that it names.

    Args:
        query_dim: width of the queries, and of the result unless `out_dim` is given.
        key_dim: width of the context; None = `query_dim` (self-attention).
        num_heads: heads.
        qk_dim: width of queries and keys over all heads; None = `key_dim`.
        v_dim: width of values over all heads; None = `qk_dim`.
        out_dim: width of the result; None = `query_dim`.
        bias: whether the projections have biases.
        dropout: probability of dropping an attention weight in training.
        score: axis 1, how well a key matches a query.
        position: axis 2, where queries and keys stand.
        pattern: axis 3, which keys a query may attend to; names may be combined, "window | global".
        normaliser: axis 4, from scores to weights; a plain function (scores, keep) will do too.
        heads: axis 5, the projections.
        softcap: c of c tanh(score / c); None = none.
        kernel: "auto", or the name of one; see `perceiver.attention.kernels`.
        options: member → its options, as in {"entmax": {"alpha": 1.3}}.

    Raises:
        ValueError: for an unknown name or option, members and sizes that do not fit together, or a
            kernel that cannot compute what they say.
    """

    def __init__(
        self,
        query_dim: int,
        key_dim: int | None = None,
        *,
        num_heads: int = 1,
        qk_dim: int | None = None,
        v_dim: int | None = None,
        out_dim: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        score: str | Callable[..., Any] = "dot",
        position: str | Callable[..., Any] = "none",
        pattern: str | Pattern | Callable[..., Any] = "full",
        normaliser: str | Callable[..., Any] = "softmax",
        heads: str | Callable[..., Any] = "qkv",
        softcap: float | None = None,
        kernel: str = "auto",
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        options = options or {}
        check_all_options(options)
        key_dim = query_dim if key_dim is None else key_dim
        check_sizes(query_dim=query_dim, key_dim=key_dim, qk_dim=qk_dim, v_dim=v_dim)
        check_sizes(out_dim=out_dim, num_heads=num_heads)
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout={dropout} must lie in [0, 1]")
        if kernel not in KERNELS:
            raise ValueError(f"unknown kernel {kernel!r}: choose one of {', '.join(KERNELS)}")
        if softcap is not None and softcap <= 0:
            raise ValueError(f"softcap={softcap} must be positive, or null for none")
        self.query_dim, self.key_dim = query_dim, key_dim
        self.dropout, self.softcap, self.kernel = dropout, softcap, kernel
        self.pattern = build_pattern(pattern, options, model_dim=query_dim)
        self.heads = build_member(
            "heads",
            heads,
            options,
            query_dim=query_dim,
            key_dim=key_dim,
            num_heads=num_heads,
            qk_dim=qk_dim,
            v_dim=v_dim,
            out_dim=out_dim or query_dim,
            bias=bias,
        )
        widths = {"query_dim": self.heads.query_width, "key_dim": self.heads.key_width}
        inner = self.heads.num_heads
        self.score = build_member("score", score, options, **widths, num_heads=inner)
        self.position = build_member(
            "position",
            position,
            options,
            query_dim=self.heads.query_width,
            value_dim=self.heads.value_width,
            num_heads=inner,
        )
        if inspect.isfunction(normaliser):
            self.normaliser: Any = normaliser
        else:
            self.normaliser = build_member("normaliser", normaliser, options, num_heads=inner)
        self._check_parts(score)
        if self.heads.replaces_scale and getattr(self.score, "scale", 1.0) is None:
            self.score.scale = 1.0

    def _check_parts(self, score: object) -> None:
        """Raises ValueError for members that do not fit each other."""
        widths = self.heads.query_width, self.heads.key_width
        if widths[0] != widths[1]:
            for axis, part in (("score", self.score), ("position", self.position)):
                if part.compares_widths:
                    name = getattr(part, "name", type(part).__name__.lower())
                    raise ValueError(
                        f"{axis}={name} compares queries of width {widths[0]} with keys of "
                        f"width {widths[1]}, which must be equal: use score=general or "
                        "score=additive without positions, or heads=qkv, which projects both"
                    )
        if isinstance(self.normaliser, Sum) and not self.score.is_positive:
            raise ValueError(
                "normaliser=sum shares weights out in proportion to the scores, which must not be "
                f"negative as those of score={score} can be: use score=feature_dot"
            )
        if isinstance(self.score, LocationAware) and (
            self.position.has_bias or self.heads.mixes or self.softcap is not None
        ):
            raise ValueError(
                "score=location_aware is computed query by query: it goes with position=none, "
                "softcap=null and heads that do not talk"
            )
        rim = getattr(self.pattern, "extra_keys", 0)
        if rim and self.heads.extra_keys:
            raise ValueError("registers cannot stand beside a pattern that pads with zeros")
        if isinstance(self.pattern, Pattern):
            self.position.check_pattern(self.pattern)
        request = Request(
            score=self.score,
            position=self.position,
            pattern=self.pattern,
            normaliser=self.normaliser,
            heads=self.heads,
            softcap=self.softcap,
            dropout=self.dropout,
        )
        check_kernel(self.kernel, request)

    def check_lengths(self, queries: int, keys: int, *, batch: int | None = None) -> None:
        """Refuse numbers of queries and keys that a member of an axis cannot serve.

        `forward` asks by itself; a model that knows its lengths asks when it is built.

        Args:
            queries: q.
            keys: k, of the context.
            batch: examples; None = not known yet.

        Raises:
            ValueError: for a grid of other elements, a table or layout that is too small, or
                lengths of other examples.
        """
        pattern = self.pattern if isinstance(self.pattern, Pattern) else Full()
        self.score.check(queries, keys + self.heads.extra_keys + pattern.extra_keys)
        self.position.check(queries, keys)
        pattern.check(queries, keys, batch, self.heads.num_heads)

    def forward(
        self,
        query: Tensor,
        context: Tensor | Context | None = None,
        *,
        mask: Tensor | Pattern | None = None,
        bias: Tensor | None = None,
        need_weights: bool = False,
        step: int = 0,
    ) -> AttentionOutput:
        """Attend from `query` to `context` (to itself if None).

        Args:
            query: (b, q, query_dim); a batch of 1 asks the same of every example's context.
            context: (b, k, key_dim), masked elements finite, zeros say; or segments of a byte array
                that are joined only if the kernel needs it, with a mask of their own.
            mask: bool, True = may attend: (b, k) over keys, (b, q, k) over pairs, or (b, h, q, k);
                or a pattern, such as `Lengths(lengths)`. The result of a query that may attend to
                nothing is zero, and so is its gradient.
            bias: real numbers that are added to the scores, after any softcap; broadcasts to
                (b, h, q, k). −∞ leaves a key out as a mask does.
            need_weights: return the weights too; runs the dense kernel.
            step: index of the first query, when decoding step by step with `luong_local`.

        Raises:
            ValueError: for tensors of other ranks or sizes, or NaN in masked elements (on a CPU).
            TypeError: for a mask that is not boolean, or a bias that is.
        """
        context = query if context is None else context
        if isinstance(context, Context):
            if mask is not None:
                raise ValueError("a context of segments brings its own mask: leave mask= out")
            mask = context.mask
        self._check_shapes(query, context)
        if isinstance(context, Tensor) and context.shape[1] == 0:
            # No keys at all are like one that nobody may attend to.
            b, _, width = context.shape
            none = torch.zeros(b, 1, dtype=torch.bool, device=context.device)
            one = context.new_zeros(b, 1, width)
            read = self.forward(query, one, mask=none, need_weights=need_weights)
            weights = None if read.weights is None else read.weights[..., :0]
            return read._replace(weights=weights)
        pattern, keep, gain, centre = self._resolve_pattern(query, context, mask, step)
        dropout = self.dropout if self.training else 0.0
        sizes = (context.shape[0], self.heads.num_heads, query.shape[1], context.shape[1])
        bias = None if bias is None else broadcast_bias(bias, sizes)
        if bias is not None and isinstance(self.score, LocationAware):
            raise ValueError("score=location_aware is computed query by query: it takes no bias")
        request = Request(
            score=self.score,
            position=self.position,
            pattern=self.pattern if isinstance(self.pattern, LuongLocal) else pattern,
            normaliser=self.normaliser,
            heads=self.heads,
            mask=keep,
            has_bias=bias is not None,
            softcap=self.softcap,
            dropout=dropout,
            need_weights=need_weights,
            numbers=sizes[0] * sizes[1] * sizes[2] * sizes[3] * self.score.width,
            device=query.device.type,
            dtype=query.dtype,
            pairs=sizes[2] * sizes[3],
            query=query,
            context=context,
        )
        kernel = select_kernel(self.kernel, request)
        if kernel in ("folded", "separable"):
            result = self._fold(query, context, keep, is_joined=kernel == "folded")
        else:
            problem = self._problem(
                query, context, pattern, keep, bias, gain, dropout, need_weights
            )
            result = _run(kernel, problem, pattern)
        out = self.heads.merge(result.read, query)
        if result.empty is not None:  # biases come after what was read
            out = out.masked_fill(result.empty.all(1), 0.0)
        if mask is not None:
            forbid_masked_nan(out, context, pattern if keep is None else keep)
        weights = None
        if need_weights and result.weights is not None:
            weights = self.heads.report(result.weights[..., : context.shape[1]])
        aux = AttentionAux(result.lse, result.log_prob, result.entropy, centre)
        return AttentionOutput(out, weights, aux)

    def _fold(
        self, query: Tensor, context: Tensor | Context, keep: Tensor | None, is_joined: bool
    ) -> Result:
        if isinstance(context, Tensor):
            context = as_context(context, keep)
        elif is_joined:
            context = context.joined()
        return folded(
            query, context, score=self.score, heads=self.heads, normaliser=self.normaliser
        )

    def _check_shapes(self, query: Tensor, context: Tensor | Context) -> None:
        check_shape("query", query, "batch", "length", self.query_dim)
        check_floats("query", query)
        if not isinstance(context, Context):
            check_shape("context", context, "batch", "length", self.key_dim)
            check_floats("context", context)
        elif context.shape[-1] != self.key_dim:
            raise ValueError(
                f"context has segments of width {context.shape[-1]}; expected {self.key_dim}"
            )
        if query.shape[0] not in (1, context.shape[0]):
            raise ValueError(
                f"query has {query.shape[0]} examples and context {context.shape[0]}: "
                "they must be as many, or one query for all"
            )
        self.check_lengths(query.shape[1], context.shape[1], batch=context.shape[0])

    def _resolve_pattern(
        self, query: Tensor, context: Tensor | Context, mask: Tensor | Pattern | None, step: int
    ) -> tuple[Pattern, Tensor | None, Tensor | None, Tensor | None]:
        """(pattern, keep mask, gain, centre) of this call."""
        b, queries, keys = context.shape[0], query.shape[1], context.shape[1]
        h, device = self.heads.num_heads, query.device
        keep = None
        if isinstance(mask, Pattern):
            mask.check(queries, keys, b, h)
        if isinstance(mask, Lengths):  # the same for all queries: every kernel takes such a mask
            mask = mask.over_keys(keys, device)
        if mask is not None and not isinstance(mask, Pattern):
            keep = broadcast_mask(mask, batch=b, heads=h, queries=queries, keys=keys)
        if not isinstance(self.pattern, LuongLocal):
            if not isinstance(mask, Pattern):
                return self.pattern, keep, None, None
            both = mask if isinstance(self.pattern, Full) else self.pattern & mask
            return both, None, None, None
        if isinstance(mask, Pattern):
            keep = mask.dense(queries, keys, batch=b, heads=h, device=device)
        local = self.pattern(query.expand(b, -1, -1), sentence_lengths(keep, b, keys, device), step)
        return local, keep, local.gain(keys), local.centre

    def _problem(
        self,
        query: Tensor,
        context: Tensor | Context,
        pattern: Pattern,
        keep: Tensor | None,
        bias: Tensor | None,
        gain: Tensor | None,
        dropout: float,
        need_lse: bool,
    ) -> Problem:
        b, queries, keys = context.shape[0], query.shape[1], context.shape[1]
        if isinstance(context, Context):
            tokens = context.tokens()
            q = self.heads.queries(query)
            k, v = context.once(self.heads, lambda: self.heads.keys_and_values(tokens))
        else:
            q, k, v = self.heads.project(query, context)
        # A query of all examples is projected once, then repeated (without a copy).
        q = q.expand(b, -1, -1, -1)
        rows = torch.arange(keys - queries, keys, device=query.device)
        columns = torch.arange(keys, device=query.device)
        rotated, positioned = self.position.rotate(q, k[:, :, :keys], rows, columns)
        k = torch.cat([positioned, k[:, :, keys:]], 2) if self.heads.extra_keys else positioned
        rim = pattern.extra_keys
        if rim:
            k, v = F.pad(k, (0, 0, 0, rim)), F.pad(v, (0, 0, 0, rim))
        predicate = None
        if rim or self.heads.extra_keys:
            sizes = (b, self.heads.num_heads, queries, keys)
            keep = with_extra_keys(keep, pattern, sizes, self.heads.extra_keys, query.device)
        elif not isinstance(pattern, Full):
            predicate = pattern.bind(queries, keys, query.device)
        repeats = self.heads.num_heads // k.shape[1]
        if repeats > 1:
            k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
        return Problem(
            query=rotated,
            key=k,
            value=v,
            plain_query=q,
            score=self.score,
            position=self.position,
            normaliser=self.normaliser,
            heads=self.heads,
            mask=keep,
            predicate=predicate,
            given_bias=bias,
            gain=gain,
            softcap=self.softcap,
            dropout=dropout,
            num_extra=rim + self.heads.extra_keys,
            num_unpositioned=self.heads.extra_keys + (0 if self.position.knows_rim else rim),
            need_lse=need_lse,
            # Of other lengths, torch's own causal mask is aligned at the top left.
            is_causal=isinstance(pattern, Causal) and predicate is not None and context is query,
        )


def _run(kernel: str, problem: Problem, pattern: Pattern) -> Result:
    if kernel == "linear":
        return linear(problem, is_causal=isinstance(pattern, Causal))
    return {"dense": dense, "sdpa": sdpa, "flex": flex, "chunked": chunked}[kernel](problem)
