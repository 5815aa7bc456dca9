"""The attention equation: heads → position → score → pattern → normaliser → read → merge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from perceiver.attention.catalogue import (
    build_member,
    build_normaliser,
    build_pattern,
    check_all_options,
    check_members,
)
from perceiver.attention.context import Context, check_context, one_masked_key
from perceiver.attention.kernels import Problem, check_name, select_kernel
from perceiver.attention.masks import broadcast_bias, forbid_masked_nan, split_mask
from perceiver.attention.output import AttentionAux, AttentionOutput
from perceiver.attention.patterns import Pattern, Sizes
from perceiver.ops.checks import check_floats, check_shape, check_sizes
from perceiver.types import Segment


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
        check_name(kernel)
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
        inner = {"query_dim": self.heads.query_width, "num_heads": self.heads.num_heads}
        self.score = build_member("score", score, options, **inner, key_dim=self.heads.key_width)
        self.position = build_member(
            "position", position, options, **inner, value_dim=self.heads.value_width
        )
        self.normaliser = build_normaliser(normaliser, options, num_heads=self.heads.num_heads)
        self.heads.prepare_score(self.score)
        check_members(
            score=self.score,
            position=self.position,
            pattern=self.pattern,
            normaliser=self.normaliser,
            heads=self.heads,
            chosen_score=score,
        )
        self._check_kernel()

    def _check_kernel(self) -> None:
        """Refuse a kernel that can serve no call, before there is one."""
        query, context = torch.empty(1, 0, self.query_dim), torch.empty(1, 0, self.key_dim)
        select_kernel(self.kernel, self._problem(query, Context([Segment(context)])))

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
        self.score.check(queries, keys + self.heads.extra_keys + self.pattern.padding_keys)
        self.position.check(queries, keys)
        self.pattern.check(queries, keys, batch, self.heads.num_heads)

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
                or a pattern, such as `Lengths(lengths)`. Two dimensions are never torch's (q, k),
                also where b = q: give that as mask[None]. The result of a query that may attend to
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
        problem = self.problem(
            query, context, mask=mask, bias=bias, need_weights=need_weights, step=step
        )
        result = select_kernel(self.kernel, problem).run(problem)
        out = self.heads.merge(result.read, query)
        if result.empty is not None:  # the biases of projections come after what was read
            out = out.masked_fill(result.empty.all(1), 0.0)
        forbid_masked_nan(out, problem.context, problem.keep, problem.pattern)
        weights = None
        if need_weights and result.weights is not None:
            weights = self.heads.report(result.weights[..., : context.shape[1]])
        centre = problem.pattern.window_centre
        aux = AttentionAux(result.lse, result.log_prob, result.entropy, centre)
        return AttentionOutput(out, weights, aux)

    def problem(
        self,
        query: Tensor,
        context: Tensor | Context,
        *,
        mask: Tensor | Pattern | None = None,
        bias: Tensor | None = None,
        need_weights: bool = False,
        step: int = 0,
    ) -> Problem:
        """What a kernel is given of a call; nothing is projected yet. See `forward`."""
        check_shape("query", query, "batch", "length", self.query_dim)
        check_floats("query", query)
        check_context(context, mask, self.key_dim)
        if query.shape[0] not in (1, context.shape[0]):
            raise ValueError(
                f"query has {query.shape[0]} examples and context {context.shape[0]}: "
                "they must be as many, or one query for all"
            )
        self.check_lengths(query.shape[1], context.shape[1], batch=context.shape[0])
        if isinstance(context, Context):
            mask = context.mask
        if context.shape[1] == 0:
            context, mask = one_masked_key(context)
            bias = None
        return self._problem(query, context, mask, bias, need_weights, step)

    def _problem(
        self,
        query: Tensor,
        context: Tensor | Context,
        mask: Tensor | Pattern | None = None,
        bias: Tensor | None = None,
        need_weights: bool = False,
        step: int = 0,
    ) -> Problem:
        sizes = Sizes(context.shape[0], self.heads.num_heads, query.shape[1], context.shape[1])
        bias = None if bias is None else broadcast_bias(bias, sizes)
        self.score.check_additions(
            has_position_bias=self.position.has_bias,
            mixes_heads=self.heads.mixes,
            softcap=self.softcap,
            has_bias=bias is not None,
        )
        given, keep = split_mask(mask, sizes, query.device)
        pattern, keep = self.pattern.resolve(query, sizes, given=given, keep=keep, first=step)
        return Problem(
            query=query,
            context=context,
            score=self.score,
            position=self.position,
            pattern=pattern,
            normaliser=self.normaliser,
            heads=self.heads,
            keep=keep,
            given_bias=bias,
            softcap=self.softcap,
            dropout=self.dropout if self.training else 0.0,
            need_weights=need_weights,
        )
