"""Score functions, axis 1 of attention: how well a key matches a query."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceiver.attention.normalisers.normaliser import Normalised, widen
from perceiver.ops.checks import check_sizes
from perceiver.ops.init import lecun_linear
from perceiver.shapes import Bool, Float


class Folded(NamedTuple):
    """A score as a dot product: s_ij = scale · query_i·key_j + key_bias_j + query_bias_i.

    Args:
        query: (b, h, q, d).
        key: (b, h, k, d).
        scale: one number.
        key_bias: (b, h, k), or None.
        query_bias: (b, h, q), or None; it shifts a whole row, so softmax does not see it.
    """

    query: Tensor
    key: Tensor
    scale: float = 1.0
    key_bias: Tensor | None = None
    query_bias: Tensor | None = None


class Score(nn.Module):
    """Base of all scores: (q, k) → s (b, h, q, k).

    `compares_widths`: queries and keys must be equally wide. `is_positive`: scores are never
    negative. `is_sequential`: the scores of a query depend on the weights of the query before it.
    `width`: numbers that a (query, key) pair takes while its score is computed.
    """

    compares_widths = False
    is_positive = False
    is_sequential = False
    width = 1

    def check(self, num_queries: int, num_keys: int) -> None:
        """Raises ValueError for numbers of queries and keys that the score cannot compare."""
        return

    def check_additions(
        self, *, has_position_bias: bool, mixes_heads: bool, softcap: float | None, has_bias: bool
    ) -> None:
        """Raises ValueError for what cannot be done to these scores before they are normalised.

        Args:
            has_position_bias: positions add a bias.
            mixes_heads: heads mix their scores.
            softcap: c, or None.
            has_bias: the caller adds a bias.
        """
        return

    @abstractmethod
    def forward(
        self, query: Float[Tensor, "b h q d"], key: Float[Tensor, "b h k d2"]
    ) -> Float[Tensor, "b h q k"]: ...

    def of_columns(
        self,
        query: Float[Tensor, "b h q d"],
        key: Float[Tensor, "b h k d2"],
        columns: slice,
    ) -> Float[Tensor, "b h q k2"]:
        """The scores of some of the keys, for a score that knows keys by their content alone."""
        return self(query, key[:, :, columns])

    def weigh(
        self,
        query: Float[Tensor, "b h q d"],
        key: Float[Tensor, "b h k d2"],
        normalise: Callable[[Tensor, Tensor | None], Normalised],
        keep: Bool[Tensor, "#b #h #q #k"] | None,
    ) -> Normalised:
        """The weights of a sequence of queries, which here do not know of each other.

        Args:
            query: the queries in their order.
            key: the keys.
            normalise: (scores, keep) → weights.
            keep: True = may be attended to.
        """
        return normalise(self(query, key), keep)

    def scale_for(self, width: int) -> float | Tensor:
        """The factor on q·k, which position terms that multiply queries share."""
        return 1.0


class DotProductScore(Score):
    """Base of the scores that are a dot product in disguise: fused kernels serve exactly these."""

    name = ""

    @abstractmethod
    def fold(self, query: Float[Tensor, "b h q d"], key: Float[Tensor, "b h k d2"]) -> Folded:
        """The score as a dot product."""

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        folded = self.fold(query, key)
        # Scale before the product: half-precision scores must not overflow.
        scores = (folded.query * folded.scale) @ folded.key.transpose(-1, -2)
        if folded.key_bias is not None:
            scores = scores + folded.key_bias[..., None, :].to(scores.dtype)
        if folded.query_bias is not None:
            scores = scores + folded.query_bias[..., None].to(scores.dtype)
        return scores


class LinearScore(DotProductScore):
    """Base of the scores that are linear in the keys, so that projections fold into queries."""

    name = ""

    @abstractmethod
    def fold_query(self, query: Float[Tensor, "b h q d"]) -> Float[Tensor, "b h q d2"]:
        """The queries q' with s_ij = q'_i · key_j."""


class Dot(LinearScore):
    """s = scale · q·k (Vaswani et al. 2017, eq. 1; Luong et al. 2015, eq. 8 with scale 1).

    Args:
        scale: None = 1/√d, d the width of a head; a number, 1 for the plain product; or "learned",
            one factor that starts at 1/√d.
        query_dim: d, for a learned scale.
    """

    compares_widths = True

    def __init__(self, *, scale: float | str | None = None, query_dim: int | None = None) -> None:
        super().__init__()
        self.scale: float | Tensor | None
        if isinstance(scale, str):
            if scale != "learned" or query_dim is None:
                raise ValueError(f"scale={scale!r} must be null, a number or 'learned'")
            # Of one dimension: FSDP shards no scalars.
            self.scale = nn.Parameter(torch.full((1,), query_dim**-0.5))
        else:
            self.scale = scale

    def scale_for(self, width: int) -> float | Tensor:
        return 1 / math.sqrt(width) if self.scale is None else self.scale

    def fold(self, query: Tensor, key: Tensor) -> Folded:
        scale = self.scale_for(query.shape[-1])
        if isinstance(scale, Tensor):
            return Folded(query * scale.to(query.dtype), key)
        return Folded(query, key, scale)

    def fold_query(self, query: Tensor) -> Tensor:
        folded = self.fold(query, query)
        return folded.query * folded.scale


class General(LinearScore):
    """s = qᵀ W k (Luong et al. 2015, eq. 8), queries and keys of any widths; all heads share W.

    Args:
        query_dim: rows of W.
        key_dim: columns of W.
    """

    def __init__(self, *, query_dim: int, key_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(lecun_linear(key_dim, query_dim, bias=False).weight.detach())

    def fold(self, query: Tensor, key: Tensor) -> Folded:
        return Folded(query @ self.weight, key)

    def fold_query(self, query: Tensor) -> Tensor:
        return query @ self.weight


class Additive(Score):
    """s = v·tanh(W q + U k [+ b]) (Bahdanau et al. 2015, A.1.2); all heads share W, U and v.

    Luong's concat, v·tanh(W [q; k]), is the same with the two halves of one W.

    Args:
        query_dim: width of a query.
        key_dim: width of a key.
        hidden_dim: width a of the hidden layer; None = `key_dim`.
        bias: whether the hidden layer has a bias; in neither paper.
    """

    def __init__(
        self, *, query_dim: int, key_dim: int, hidden_dim: int | None = None, bias: bool = False
    ) -> None:
        super().__init__()
        check_sizes(hidden_dim=hidden_dim)
        self.width = hidden_dim or key_dim
        self.to_query = lecun_linear(query_dim, self.width, bias=False)
        self.to_key = lecun_linear(key_dim, self.width, bias=bias)
        self.to_score = lecun_linear(self.width, 1, bias=False)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        hidden = self.to_query(query)[..., :, None, :] + self.to_key(key)[..., None, :, :]
        return self.to_score(hidden.tanh())[..., 0]


class Cosine(DotProductScore):
    """s = β q·k / (|q| |k|) (Graves et al. 2014, eq. 6; Liu et al. 2022, Swin v2, eq. 2).

    Args:
        scale: β: a number; "learned", one factor that starts at 10 (Henry et al. 2020); or "log",
            exp(min(t, log 100)) with one t per head that starts at log 10 (Swin v2).
        eps: the least norm that is divided by, so that a vector of zeros scores 0.
        num_heads: heads, for "log".
    """

    compares_widths = True

    def __init__(
        self, *, scale: float | str = "log", eps: float = 1e-12, num_heads: int = 1
    ) -> None:
        super().__init__()
        self.eps = eps
        if isinstance(scale, str) and scale not in ("learned", "log"):
            raise ValueError(f"scale={scale!r} must be a number, 'learned' or 'log'")
        self.log_scale = (
            nn.Parameter(torch.full((num_heads, 1, 1), math.log(10.0))) if scale == "log" else None
        )
        self.scale = nn.Parameter(torch.full((1,), 10.0)) if scale == "learned" else scale

    def _beta(self) -> float | Tensor:
        if self.log_scale is not None:
            return self.log_scale.clamp(max=math.log(100.0)).exp()
        assert not isinstance(self.scale, str)
        return self.scale

    def fold(self, query: Tensor, key: Tensor) -> Folded:
        unit_query, unit_key = (
            F.normalize(widen(x), dim=-1, eps=self.eps).to(x.dtype) for x in (query, key)
        )
        beta = self._beta()
        if isinstance(beta, Tensor):
            return Folded(unit_query * beta.to(query.dtype), unit_key)
        return Folded(unit_query, unit_key, beta)


class NegL2(DotProductScore):
    """s = −scale · |q − k|² (Kim et al. 2021, "The Lipschitz constant of self-attention", 4).

    The paper's Lipschitz bound needs the same projection for queries and keys besides.

    Args:
        scale: None = 1/√d.
    """

    compares_widths = True

    def __init__(self, *, scale: float | None = None) -> None:
        super().__init__()
        self.scale = scale

    def fold(self, query: Tensor, key: Tensor) -> Folded:
        scale = 1 / math.sqrt(query.shape[-1]) if self.scale is None else self.scale
        key_bias, query_bias = (-scale * widen(x).square().sum(-1) for x in (key, query))
        return Folded(query, key, 2 * scale, key_bias, query_bias)


def elu_feature(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """φ(x) = elu(x) + 1 (Katharopoulos et al. 2020, eq. 7)."""
    return F.elu(x) + 1


class FeatureDot(DotProductScore):
    """s = φ(q)·φ(k), φ = elu + 1: never negative, so `sum` normalises it: linear attention."""

    is_positive = True
    compares_widths = True

    def fold(self, query: Tensor, key: Tensor) -> Folded:
        return Folded(elu_feature(query), elu_feature(key))
