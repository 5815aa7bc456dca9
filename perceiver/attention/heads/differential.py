"""Heads whose weights are the difference of two softmaxes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from perceiver.attention.heads.qkv import QKVHeads
from perceiver.ops.norms import RMSNorm
from perceiver.shapes import Float


class DifferentialHeads(QKVHeads):
    """Each head's weights are the difference of two softmaxes (Ye et al. 2024, eq. 1 to 3).

    Of 2H heads of queries and keys, 2h and 2h + 1 are a pair and share a value twice as wide:
    out_h = (1 − l₀) RMSNorm(w_{2h} v_h − λ w_{2h+1} v_h). Two ordinary attentions, so any kernel
    serves.

    Args:
        query_dim: width of the queries that come in.
        key_dim: width of the context.
        out_dim: width of the result.
        num_heads: H, pairs; 2H must divide `qk_dim`.
        qk_dim: width of queries over all 2H heads; None = `key_dim`.
        v_dim: width of values over all pairs; None = `qk_dim`.
        bias: whether the four projections have biases.
        depth: of the layer, from 0: λ starts at l₀ = 0.8 − 0.6 exp(−0.3 depth).
    """

    name = "differential"

    def __init__(
        self,
        *,
        query_dim: int,
        key_dim: int,
        out_dim: int,
        num_heads: int = 1,
        qk_dim: int | None = None,
        v_dim: int | None = None,
        bias: bool = True,
        depth: int = 0,
    ) -> None:
        qk_dim = qk_dim or key_dim
        if qk_dim % (2 * num_heads):
            raise ValueError(
                f"heads=differential makes two heads of each: 2 × num_heads={2 * num_heads} does "
                f"not divide qk_dim={qk_dim}; set another num_heads or qk_dim"
            )
        super().__init__(
            query_dim=query_dim,
            key_dim=key_dim,
            out_dim=out_dim,
            num_heads=num_heads,
            qk_dim=qk_dim,
            v_dim=v_dim,
            bias=bias,
        )
        self.num_heads = self.num_kv_heads = 2 * num_heads
        self.query_width = self.key_width = qk_dim // (2 * num_heads)
        self.first_lambda = 0.8 - 0.6 * math.exp(-0.3 * depth)
        self.lambdas = nn.ParameterDict(
            {
                name: nn.Parameter(0.1 * torch.randn(self.query_width))
                for name in ("query1", "key1", "query2", "key2")
            }
        )
        self.norm_pair = RMSNorm(self.value_width, eps=1e-5)

    def lambda_(self) -> Float[Tensor, ""]:
        """λ = exp(λ_q1·λ_k1) − exp(λ_q2·λ_k2) + l₀ (eq. 2)."""
        first = (self.lambdas["query1"] * self.lambdas["key1"]).sum().exp()
        second = (self.lambdas["query2"] * self.lambdas["key2"]).sum().exp()
        return first - second + self.first_lambda

    def keys_and_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        keys = self._split(self.to_key(context), self.num_heads)
        pairs = self._split(self.to_value(context), self.num_heads // 2)
        return keys, pairs.repeat_interleave(2, 1)

    def _difference(self, pairs: Tensor) -> Tensor:
        first, second = pairs.unflatten(1, (-1, 2)).unbind(2)
        return first - self.lambda_().to(pairs.dtype) * second

    def merge(self, read: Tensor, query: Tensor) -> Tensor:
        normed = self.norm_pair(self._difference(read)) * (1 - self.first_lambda)
        return super().merge(normed, query)

    def report(self, weights: Tensor) -> Tensor:
        return self._difference(weights)
