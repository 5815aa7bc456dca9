"""The attention equation: heads → score → keep mask → normaliser → read → merge."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from perceiver.attention import normalisers, scores
from perceiver.attention.choose import choose
from perceiver.attention.heads import QKVHeads
from perceiver.attention.kernels import KERNELS, dense, sdpa, select_kernel


class AttentionOutput(NamedTuple):
    """What attention returns.

    Args:
        out: (b, q, out_dim).
        weights: (b, h, q, k) if they were asked for, else None.
    """

    out: Tensor
    weights: Tensor | None = None


def broadcast_mask(mask: Tensor, *, batch: int, queries: int, keys: int) -> Tensor:
    """A keep mask of 2, 3 or 4 dimensions as one that broadcasts to (b, h, q, k).

    Args:
        mask: bool (b, k) over keys, (b, q, k) over pairs or (b, h, q, k); True = may attend.

    Raises:
        TypeError: for a mask that is not boolean.
        ValueError: for a mask of other dimensions or sizes.
    """
    if mask.dtype is not torch.bool:
        raise TypeError(
            f"mask is {mask.dtype}; give a boolean mask with True = may attend "
            "(a mask of another library may mean the opposite)"
        )
    views = {2: (slice(None), None, None), 3: (slice(None), None), 4: (slice(None),)}
    if mask.dim() not in views:
        raise ValueError(f"mask has shape {tuple(mask.shape)}; expected (b, k), (b, q, k) or 4-D")
    wide = mask[views[mask.dim()]]
    expected = {0: batch, 2: queries, 3: keys}
    if any(wide.shape[dim] not in (1, size) for dim, size in expected.items()):
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, which does not fit batch={batch}, "
            f"queries={queries}, keys={keys}"
        )
    return wide


class Attention(nn.Module):
    """Attention of queries over a context: o = normaliser(score(q, k)) v, in heads.

    Self-attention is attention without a context. Every axis is named: `score` one of the classes
    of `perceiver.attention.scores`, `normaliser` one of the functions of
    `perceiver.attention.normalisers`. A score or normaliser of one's own may be given in place of
    a name (a class without arguments, or a function).

    Args:
        query_dim: width of the queries, and of the result unless `out_dim` is given.
        key_dim: width of the context; None = `query_dim` (self-attention).
        num_heads: heads; must divide `qk_dim` and `v_dim`.
        qk_dim: width of queries and keys over all heads; None = `key_dim`.
        v_dim: width of values over all heads; None = `qk_dim`.
        out_dim: width of the result; None = `query_dim`.
        bias: whether the projections have biases.
        dropout: probability of dropping an attention weight in training.
        score: "dot".
        scale: factor of the score; None = 1/√d, d the width of a head.
        normaliser: "softmax".
        kernel: "auto", or the name of one; see `perceiver.attention.kernels`.

    Raises:
        ValueError: for an unknown name, or heads that do not divide a width.
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
        score: str | Callable[..., scores.Score] = "dot",
        scale: float | None = None,
        normaliser: str | Callable[..., Tensor] = "softmax",
        kernel: str = "auto",
    ) -> None:
        super().__init__()
        key_dim = key_dim or query_dim
        qk_dim = qk_dim or key_dim
        self.query_dim, self.key_dim = query_dim, key_dim
        self.dropout = dropout
        self.score = choose("score", score, scores)(scale=scale)
        self.normaliser = choose("normaliser", normaliser, normalisers)
        if kernel not in KERNELS:
            raise ValueError(f"unknown kernel {kernel!r}: choose one of {', '.join(KERNELS)}")
        self.kernel = kernel
        self.heads = QKVHeads(
            query_dim=query_dim,
            key_dim=key_dim,
            num_heads=num_heads,
            qk_dim=qk_dim,
            v_dim=v_dim or qk_dim,
            out_dim=out_dim or query_dim,
            bias=bias,
        )

    def forward(
        self,
        query: Float[Tensor, "b q e"],
        context: Float[Tensor, "b k c"] | None = None,
        *,
        mask: Bool[Tensor, "..."] | None = None,
        need_weights: bool = False,
    ) -> AttentionOutput:
        """Attend from `query` to `context` (to itself if None).

        Args:
            mask: bool, True = may attend: (b, k) over keys, (b, q, k) over pairs, or (b, h, q, k).
                A query that may attend to nothing reads zeros.
            need_weights: return the weights too; runs the dense kernel.
        """
        context = query if context is None else context
        keep = mask
        if mask is not None:
            keep = broadcast_mask(
                mask, batch=query.shape[0], queries=query.shape[1], keys=context.shape[1]
            )
        dropout = self.dropout if self.training else 0.0
        name = select_kernel(
            self.kernel,
            score=self.score,
            normaliser=self.normaliser,
            need_weights=need_weights,
            dropout=dropout,
        )
        q, k, v = self.heads.project(query, context)
        weights = None
        if name == "sdpa":
            read = sdpa(q, k, v, score=self.score, keep=keep, dropout=dropout)
        else:
            read, weights = dense(
                q,
                k,
                v,
                score=self.score,
                normaliser=self.normaliser,
                keep=keep,
                dropout=dropout,
            )
        return AttentionOutput(self.heads.merge(read), weights if need_weights else None)
