"""Heads, axis 5 of attention: the projections to queries, keys and values, and back."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceiver.attention.normalisers.normaliser import widen
from perceiver.ops.init import is_its_weight, lecun_linear
from perceiver.ops.norms import RMSNorm
from perceiver.shapes import Float

QK_NORMS = ("none", "rms", "layer", "l2")


class Heads(nn.Module):
    """Base of heads.

    `num_heads`: heads that scores are computed for. `query_width`, `key_width`, `value_width`:
    widths of one head. `mixes`: heads exchange scores or weights (talking heads).
    `extra_keys`: learned keys behind those of the context.
    """

    num_heads: int
    query_width: int
    key_width: int
    value_width: int
    mixes = False
    extra_keys = 0

    @abstractmethod
    def queries(self, query: Float[Tensor, "b q e"]) -> Float[Tensor, "b h q d"]:
        """The queries of h heads."""

    @abstractmethod
    def keys_and_values(
        self, context: Float[Tensor, "b k c"]
    ) -> tuple[Float[Tensor, "b g k2 d2"], Float[Tensor, "b g k2 d3"]]:
        """Keys and values of g heads, g dividing h."""

    def project(
        self, query: Float[Tensor, "#b q e"], context: Float[Tensor, "b k c"]
    ) -> tuple[Float[Tensor, "#b h q d"], Float[Tensor, "b g k2 d2"], Float[Tensor, "b g k2 d3"]]:
        """Queries, keys and values; there may be more keys than tokens of the context."""
        return self.queries(query), *self.keys_and_values(context)

    def prepare_score(self, score: Any) -> None:
        """What heads do to the score that they come with."""
        return

    @property
    def num_projected(self) -> int:
        """Channels of all keys and values together that are products with the context."""
        return 0

    @property
    def folds(self) -> bool:
        """Whether keys and values are linear in the context, so that `fold` can do without them."""
        return False

    def fold(
        self, query: Float[Tensor, "b h q d"]
    ) -> tuple[Float[Tensor, "b h q c"], Float[Tensor, "b h q"]]:
        """(a, s) with query · key(x) = a · x + s for any token x of the context."""
        raise NotImplementedError

    def fold_values(
        self, read: Float[Tensor, "b h q c"], total: Float[Tensor, "b h q 1"]
    ) -> Float[Tensor, "b h q d"]:
        """Σ w value(x) from Σ w x and Σ w."""
        raise NotImplementedError

    @abstractmethod
    def merge(
        self, read: Float[Tensor, "b h q d"], query: Float[Tensor, "b q e"]
    ) -> Float[Tensor, "b q out"]:
        """From what the heads read to the result; `query` as it came in."""

    def mix_scores(self, scores: Float[Tensor, "b h q k"]) -> Float[Tensor, "b h q k"]:
        """What heads do to each other's scores."""
        return scores

    def mix_weights(self, weights: Float[Tensor, "b h q k"]) -> Float[Tensor, "b h q k"]:
        """What heads do to each other's weights."""
        return weights

    def report(self, weights: Float[Tensor, "b h q k"]) -> Float[Tensor, "b h2 q k"]:
        """The weights on the values, as a caller sees them."""
        return weights


class Identity(Heads):
    """No projections: queries and keys are compared as they are, keys are the values.

    The attention of Bahdanau et al. 2015, Luong et al. 2015 and Xu et al. 2015. A linear map to
    `out_dim` follows only where the context has another width.

    Args:
        query_dim: width of the queries.
        key_dim: width of the context.
        out_dim: width of the result.
        num_heads: 1.
        qk_dim: None: there is nothing to project to.
        v_dim: None.
        bias: whether the map to `out_dim`, if there is one, has a bias.
    """

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
    ) -> None:
        super().__init__()
        if num_heads != 1 or qk_dim is not None or v_dim is not None:
            raise ValueError(
                f"heads=identity projects nothing: num_heads={num_heads}, qk_dim={qk_dim} and "
                f"v_dim={v_dim} must be 1, null and null; or set heads=qkv"
            )
        self.num_heads = 1
        self.query_width, self.key_width, self.value_width = query_dim, key_dim, key_dim
        self.to_out = lecun_linear(key_dim, out_dim, bias=bias) if out_dim != key_dim else None

    @property
    def folds(self) -> bool:
        return True

    def queries(self, query: Tensor) -> Tensor:
        return query[:, None]

    def keys_and_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        return context[:, None], context[:, None]

    def fold(self, query: Tensor) -> tuple[Tensor, Tensor]:
        return query, query.new_zeros(query.shape[:-1])

    def fold_values(self, read: Tensor, total: Tensor) -> Tensor:
        return read

    def merge(self, read: Tensor, query: Tensor) -> Tensor:
        return read[:, 0] if self.to_out is None else self.to_out(read[:, 0])


class QKVHeads(Heads):
    """Multi-head projections (Vaswani et al. 2017, 3.2.2).

    Head h owns channels h·d … (h+1)·d − 1 after one projection for all heads.

    Args:
        query_dim: width of the queries that come in.
        key_dim: width of the context that keys and values are made from.
        out_dim: width of the result.
        num_heads: heads; must divide `qk_dim` and `v_dim`.
        qk_dim: width of queries over all heads; None = `key_dim`.
        v_dim: width of what is read over all heads; None = `qk_dim`, without an output projection
            `out_dim`.
        bias: whether the four projections have biases.
        num_kv_heads: heads of keys and values; None = `num_heads`, 1 = multi-query (Shazeer 2019),
            else grouped-query: query head h uses ⌊h / (num_heads / num_kv_heads)⌋ (Ainslie et al.
            2023).
        has_out_proj: whether a projection ends it.
        qk_norm: norm of each head's queries and keys: "none"; "rms" or "layer" with a weight a
            channel (Qwen3; Dehghani et al. 2023); "l2" with a learned scale in place of 1/√d
            (Henry et al. 2020).
        is_gated: multiply what is read by σ(W_g x_query) before the last projection (Qiu et al.
            2025, G1).
        is_talking: mix heads before and after the normaliser (Shazeer et al. 2020).
        num_registers: learned tokens that every example's context ends with (Darcet et al. 2024);
            an example without anything else to attend to does not see them either.

    Raises:
        ValueError: for widths and heads that do not fit together.
    """

    name = "qkv"

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
        num_kv_heads: int | None = None,
        has_out_proj: bool = True,
        qk_norm: str = "none",
        is_gated: bool = False,
        is_talking: bool = False,
        num_registers: int = 0,
    ) -> None:
        super().__init__()
        qk_dim = qk_dim or key_dim
        v_dim = v_dim or (qk_dim if has_out_proj else out_dim)
        for name, width in (("qk_dim", qk_dim), ("v_dim", v_dim)):
            if num_heads < 1 or width % num_heads:
                choices = [h for h in range(1, min(width, 64) + 1) if width % h == 0]
                raise ValueError(
                    f"num_heads={num_heads} does not divide {name}={width}: "
                    f"set num_heads to one of {choices}, or another {name}"
                )
        if num_registers < 0:
            raise ValueError(f"num_registers={num_registers} must be 0 or more")
        groups = num_heads if num_kv_heads is None else num_kv_heads
        if groups < 1 or num_heads % groups:
            raise ValueError(f"num_kv_heads={groups} does not divide num_heads={num_heads}")
        if not has_out_proj and v_dim != out_dim:
            raise ValueError(
                f"without an output projection v_dim={v_dim} must be the result's width {out_dim}"
            )
        if qk_norm not in QK_NORMS:
            raise ValueError(f"qk_norm={qk_norm!r} must be one of {', '.join(QK_NORMS)}")
        self.num_heads, self.num_kv_heads, self.mixes = num_heads, groups, is_talking
        self.query_width = self.key_width = qk_dim // num_heads
        self.value_width = v_dim // num_heads
        self.to_query = lecun_linear(query_dim, qk_dim, bias=bias)
        self.to_key = lecun_linear(key_dim, groups * self.key_width, bias=bias)
        self.to_value = lecun_linear(key_dim, groups * self.value_width, bias=bias)
        self.to_out = lecun_linear(v_dim, out_dim, bias=bias) if has_out_proj else None
        self.to_gate = lecun_linear(query_dim, v_dim, bias=False) if is_gated else None
        self.norm_query, self.norm_key = self._norm(qk_norm), self._norm(qk_norm)
        self.replaces_scale = qk_norm == "l2"
        self.scale = nn.Parameter(torch.full((1,), 10.0)) if self.replaces_scale else None
        if is_talking:
            # Heads start by listening to themselves alone: plain multi-head attention.
            self.score_mix = nn.Parameter(torch.eye(num_heads))
            self.weight_mix = nn.Parameter(torch.eye(num_heads))
        self.extra_keys = num_registers
        if num_registers:
            self.registers = nn.Parameter(0.02 * torch.randn(num_registers, key_dim))

    def prepare_score(self, score: Any) -> None:
        if self.replaces_scale and getattr(score, "scale", 1.0) is None:
            score.scale = 1.0

    def _norm(self, kind: str) -> nn.Module | None:
        if kind == "rms":
            return RMSNorm(self.query_width)
        if kind == "layer":
            return nn.LayerNorm(self.query_width, eps=1e-6, bias=False)
        return None

    def _normalise(self, x: Tensor, norm: nn.Module | None) -> Tensor:
        if self.replaces_scale:
            return F.normalize(widen(x), dim=-1).to(x.dtype)
        return x if norm is None else norm(x).to(x.dtype)

    @property
    def num_projected(self) -> int:
        return self.to_key.out_features + self.to_value.out_features

    @property
    def folds(self) -> bool:
        return (
            not (self.mixes or self.extra_keys or self.replaces_scale or self.norm_key)
            and is_its_weight(self.to_key)
            and is_its_weight(self.to_value)
        )

    def queries(self, query: Tensor) -> Tensor:
        queries = self._split(self.to_query(query), self.num_heads)
        queries = self._normalise(queries, self.norm_query)
        return queries if self.scale is None else queries * self.scale.to(queries.dtype)

    def keys_and_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        if self.extra_keys:
            registers = self.registers.to(context.dtype).expand(context.shape[0], -1, -1)
            context = torch.cat([context, registers], 1)
        keys = self._split(self.to_key(context), self.num_kv_heads)
        values = self._split(self.to_value(context), self.num_kv_heads)
        return self._normalise(keys, self.norm_key), values

    def fold(self, query: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.to_key.weight.unflatten(0, (-1, self.key_width))  # a head's rows: (g, d, c)
        grouped = query.unflatten(1, (weight.shape[0], -1))  # b g h/g q d
        rows = torch.einsum("bgrqd,gdc->bgrqc", grouped, weight)
        if self.to_key.bias is None:
            return rows.flatten(1, 2), query.new_zeros(query.shape[:-1])
        shift = torch.einsum(
            "bgrqd,gd->bgrq", grouped, self.to_key.bias.unflatten(0, (-1, self.key_width))
        )
        return rows.flatten(1, 2), shift.flatten(1, 2)

    def fold_values(self, read: Tensor, total: Tensor) -> Tensor:
        weight = self.to_value.weight.unflatten(0, (-1, self.value_width))
        grouped = read.unflatten(1, (weight.shape[0], -1))
        values = torch.einsum("bgrqc,gdc->bgrqd", grouped, weight)
        if self.to_value.bias is not None:
            bias = self.to_value.bias.unflatten(0, (-1, self.value_width))[:, None, None]
            values = values + bias * total.unflatten(1, (weight.shape[0], -1))
        return values.flatten(1, 2)

    def _split(self, x: Tensor, num_heads: int) -> Tensor:
        return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)

    def merge(self, read: Tensor, query: Tensor) -> Tensor:
        merged = read.transpose(1, 2).flatten(-2)
        if self.to_gate is not None:
            merged = merged * self.to_gate(query).sigmoid()
        return merged if self.to_out is None else self.to_out(merged)

    def mix_scores(self, scores: Tensor) -> Tensor:
        return _mix(self.score_mix, scores) if self.mixes else scores

    def mix_weights(self, weights: Tensor) -> Tensor:
        return _mix(self.weight_mix, weights) if self.mixes else weights


def _mix(mix: Tensor, heads: Tensor) -> Tensor:
    """Head o of the result is Σ_a mix[o, a] · head a."""
    return torch.einsum("oa,baqk->boqk", mix.to(heads.dtype), heads)
