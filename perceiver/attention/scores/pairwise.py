"""Score functions, axis 1 of attention: how well a key matches a query."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceiver.attention.normalisers.normaliser import widen
from perceiver.ops.checks import check_sizes
from perceiver.ops.init import lecun_linear
from perceiver.shapes import Float


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

    `folds`: `fold` gives the score as a dot product. `is_linear`: `fold_query` gives it as one with
    the key itself. `compares_widths`: queries and keys must be
    equally wide. `is_positive`: scores are never negative. `width`: numbers that a (query, key)
    pair takes while its score is computed.
    """

    folds = False
    is_linear = False
    is_positive = False
    compares_widths = False
    width = 1

    def check(self, num_queries: int, num_keys: int) -> None:
        """Raises ValueError for so many queries and keys as the score cannot compare."""
        return

    @abstractmethod
    def forward(
        self, query: Float[Tensor, "b h q d"], key: Float[Tensor, "b h k d2"]
    ) -> Float[Tensor, "b h q k"]: ...

    def fold(
        self, query: Float[Tensor, "b h q d"], key: Float[Tensor, "b h k d2"]
    ) -> Folded | None:
        """The score as a dot product if it is one in disguise.

        Fused kernels apply exactly to the scores that fold; None means that this one does not.
        """
        return None

    def fold_query(self, query: Float[Tensor, "b h q d"]) -> Float[Tensor, "b h q d2"] | None:
        """The queries q' with s_ij = q'_i · key_j, if the score is linear in the keys."""
        return None

    def scale_for(self, width: int) -> float | Tensor:
        """The factor on q·k, which position terms that multiply queries share."""
        return 1.0


def _product(folded: Folded) -> Tensor:
    # The scale goes on the queries before the product: half-precision scores must not overflow.
    scores = (folded.query * folded.scale) @ folded.key.transpose(-1, -2)
    if folded.key_bias is not None:
        scores = scores + folded.key_bias[..., None, :].to(scores.dtype)
    if folded.query_bias is not None:
        scores = scores + folded.query_bias[..., None].to(scores.dtype)
    return scores


class Dot(Score):
    """s = scale · q·k (Vaswani et al. 2017, eq. 1; Luong et al. 2015, eq. 8 with scale 1).

    Args:
        scale: None = 1/√d, d the width of a head; a number, 1 for the plain product; or "learned",
            one factor that starts at 1/√d.
        query_dim: d, for a learned scale.
    """

    folds = True
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

    is_linear = True

    def fold(self, query: Tensor, key: Tensor) -> Folded:
        scale = self.scale_for(query.shape[-1])
        if isinstance(scale, Tensor):
            return Folded(query * scale.to(query.dtype), key)
        return Folded(query, key, scale)

    def fold_query(self, query: Tensor) -> Tensor:
        folded = self.fold(query, query)
        return folded.query * folded.scale

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return _product(self.fold(query, key))


class General(Score):
    """s = qᵀ W k (Luong et al. 2015, eq. 8), queries and keys of any widths; all heads share W.

    Args:
        query_dim: rows of W.
        key_dim: columns of W.
    """

    folds = True

    def __init__(self, *, query_dim: int, key_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(lecun_linear(key_dim, query_dim, bias=False).weight.detach())

    is_linear = True

    def fold(self, query: Tensor, key: Tensor) -> Folded:
        return Folded(query @ self.weight, key)

    def fold_query(self, query: Tensor) -> Tensor:
        return query @ self.weight

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return _product(self.fold(query, key))


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


class Cosine(Score):
    """s = β q·k / (|q| |k|) (Graves et al. 2014, eq. 6; Liu et al. 2022, Swin v2, eq. 2).

    Args:
        scale: β: a number; "learned", one factor that starts at 10 (Henry et al. 2020); or "log",
            exp(min(t, log 100)) with a t a head that starts at log 10 (Swin v2).
        eps: added to nothing, but the least norm that is divided by: a vector of zeros scores 0.
        num_heads: heads, for "log".
    """

    folds = True
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

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return _product(self.fold(query, key))


class NegL2(Score):
    """s = −scale · |q − k|² (Kim et al. 2021, "The Lipschitz constant of self-attention", 4).

    The paper's Lipschitz bound needs the same projection for queries and keys besides.

    Args:
        scale: None = 1/√d.
    """

    folds = True
    compares_widths = True

    def __init__(self, *, scale: float | None = None) -> None:
        super().__init__()
        self.scale = scale

    def fold(self, query: Tensor, key: Tensor) -> Folded:
        scale = 1 / math.sqrt(query.shape[-1]) if self.scale is None else self.scale
        key_bias, query_bias = (-scale * widen(x).square().sum(-1) for x in (key, query))
        return Folded(query, key, 2 * scale, key_bias, query_bias)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return _product(self.fold(query, key))


def elu_feature(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """φ(x) = elu(x) + 1 (Katharopoulos et al. 2020, eq. 7)."""
    return F.elu(x) + 1


class FeatureDot(Score):
    """s = φ(q)·φ(k), φ = elu + 1: never negative, so `sum` normalises it: linear attention."""

    folds = True
    is_positive = True
    compares_widths = True

    def fold(self, query: Tensor, key: Tensor) -> Folded:
        return Folded(elu_feature(query), elu_feature(key))

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return _product(self.fold(query, key))
