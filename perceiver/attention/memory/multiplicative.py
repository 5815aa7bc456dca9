"""The multiplicative layers of the 1990s: products of inputs, and weights made of inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceiver.attention.memory.content import Memory
from perceiver.ops.checks import check_shape, check_sizes, check_width
from perceiver.shapes import Float

RULES = ("sum", "delta")


class Multiplicative(nn.Module):
    """y_i = Σ_jk U_ijk z_k x_j: each input is weighted by the other (a bilinear map, no bias).

    Args:
        x_dim: width of x.
        z_dim: width of z.
        out_dim: width of y.
    """

    def __init__(self, x_dim: int, z_dim: int, out_dim: int) -> None:
        super().__init__()
        check_sizes(x_dim=x_dim, z_dim=z_dim, out_dim=out_dim)
        std = 1 / math.sqrt(x_dim * z_dim)  # unit variance for unit inputs
        self.weight = nn.Parameter(torch.randn(out_dim, x_dim, z_dim) * std)

    def forward(self, x: Float[Tensor, "*b j"], z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b i"]:
        check_width("x", x, self.weight.shape[1])
        check_width("z", z, self.weight.shape[2])
        return F.bilinear(x, z, self.weight)


class SigmaPi(nn.Module):
    """net_j = Σ_c w_jc Π_{i in c} x_i: a sum of products (Rumelhart, Hinton & McClelland 1986).

    Args:
        in_dim: width of x.
        out_dim: units j.
        conjuncts: the index sets c, as tuples; an index may occur twice (a square), and the empty
            tuple is a bias.

    Raises:
        ValueError: without conjuncts, or for an index outside [0, in_dim).
    """

    conjuncts: Tensor

    def __init__(self, in_dim: int, out_dim: int, *, conjuncts: Sequence[Sequence[int]]) -> None:
        super().__init__()
        check_sizes(in_dim=in_dim, out_dim=out_dim)
        if not conjuncts:
            raise ValueError("conjuncts is empty: name at least one tuple of indices to multiply")
        for conjunct in conjuncts:
            if any(not 0 <= index < in_dim for index in conjunct):
                raise ValueError(
                    f"conjunct {tuple(conjunct)} has an index outside [0, in_dim={in_dim})"
                )
        self.in_dim = in_dim
        # Tuples of different lengths are filled up with the index of a constant 1 behind x.
        longest = max(1, *(len(conjunct) for conjunct in conjuncts))
        rows = [[*conjunct, *[in_dim] * (longest - len(conjunct))] for conjunct in conjuncts]
        self.register_buffer("conjuncts", torch.tensor(rows), persistent=False)
        std = 1 / math.sqrt(len(conjuncts))
        self.weight = nn.Parameter(torch.randn(out_dim, len(conjuncts)) * std)

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b j"]:
        check_width("x", x, self.in_dim)
        with_one = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
        return F.linear(with_one[..., self.conjuncts].prod(-1), self.weight)


def attention_module(
    scores: Float[Tensor, "*b i"], values: Float[Tensor, "*b i d"]
) -> Float[Tensor, "*b d"]:
    """s = Σ_i softmax(z)_i x_i: one input chosen among many, softly."""
    check_shape("values", values, *scores.shape, "d")
    return (scores.softmax(-1)[..., None, :] @ values).squeeze(-2)


class HyperLinear(nn.Module):
    """y = W(z) x + b(z), W(z) = reshape(A z + a), b(z) = B z + c: z programs a linear layer of x.

    Fast weights of Schmidhuber (1992), the hypernetworks of Ha, Dai & Le (2017).

    Args:
        in_dim: width of x.
        out_dim: width of y.
        z_dim: width of z.
        bias: whether y has the bias b(z).
    """

    def __init__(self, in_dim: int, out_dim: int, z_dim: int, *, bias: bool = True) -> None:
        super().__init__()
        check_sizes(in_dim=in_dim, out_dim=out_dim, z_dim=z_dim)
        self.in_dim, self.out_dim = in_dim, out_dim
        self.to_weight = nn.Linear(z_dim, out_dim * in_dim)
        self.to_bias = nn.Linear(z_dim, out_dim) if bias else None
        # So that W(z), for z of unit variance, starts as an ordinary layer's weight would.
        nn.init.normal_(self.to_weight.weight, std=1 / math.sqrt(2 * in_dim * z_dim))
        nn.init.normal_(self.to_weight.bias, std=1 / math.sqrt(2 * in_dim))

    def forward(self, x: Float[Tensor, "*b j"], z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b i"]:
        check_width("x", x, self.in_dim)
        check_width("z", z, self.to_weight.in_features)
        weight = self.to_weight(z).unflatten(-1, (self.out_dim, self.in_dim))
        y = (weight @ x[..., None]).squeeze(-1)
        return y if self.to_bias is None else y + self.to_bias(z)


def fast_weight_step(
    weights: Float[Tensor, "*b v k"],
    key: Float[Tensor, "*b k"],
    value: Float[Tensor, "*b v"],
    query: Float[Tensor, "*b k"],
    rate: Float[Tensor, "*b"],
    *,
    rule: str = "sum",
) -> tuple[Float[Tensor, "*b v"], Float[Tensor, "*b v k"]]:
    """One write and one read of fast weights; returns (y, next weights), y = W_t q.

    rule="sum": W_t = W_{t−1} + β v kᵀ (Schmidhuber 1992), causal linear attention with no
    normaliser. rule="delta": W_t = W_{t−1} + β (v − W_{t−1} k) kᵀ (Schlag, Irie & Schmidhuber
    2021, eq. 24): what was stored under the key is replaced; keys should have unit length.

    Raises:
        ValueError: for another rule, or vectors of widths that do not fit the weights.
    """
    if rule not in RULES:
        raise ValueError(f"rule={rule!r} must be one of {', '.join(RULES)}")
    for name, vector, width in (
        ("key", key, weights.shape[-1]),
        ("value", value, weights.shape[-2]),
        ("query", query, weights.shape[-1]),
    ):
        check_width(name, vector, width)
    if rule == "delta":
        value = value - (weights @ key[..., None]).squeeze(-1)
    weights = weights + (rate[..., None] * value)[..., None] * key[..., None, :]
    return (weights @ query[..., None]).squeeze(-1), weights


@dataclass(frozen=True)
class FastWeightState:
    """The fast weights (b, v, k): all that is carried from step to step."""

    weights: Tensor


class FastWeights(Memory):
    """A memory whose rows are a weight matrix that the controller reprograms every step.

    Keys and queries have unit length, the rate lies in (0, 1).

    Args:
        control_dim: width of the control vector.
        key_dim: width k of keys and queries.
        value_dim: width v of values, and of what is read.
        rule: "sum" or "delta".

    Raises:
        ValueError: for another rule, or a size below 1.
    """

    def __init__(
        self, control_dim: int, *, key_dim: int = 16, value_dim: int = 16, rule: str = "delta"
    ) -> None:
        super().__init__()
        check_sizes(control_dim=control_dim, key_dim=key_dim, value_dim=value_dim)
        if rule not in RULES:
            raise ValueError(f"rule={rule!r} must be one of {', '.join(RULES)}")
        self.key_dim, self.read_dim, self.rule = key_dim, value_dim, rule
        self._sizes = [key_dim, value_dim, key_dim, 1]
        self.to_interface = nn.Linear(control_dim, sum(self._sizes))

    def initial(self, batch: int, like: Tensor) -> FastWeightState:
        """No fast weights yet."""
        return FastWeightState(like.new_zeros(batch, self.read_dim, self.key_dim))

    def step(
        self, control: Float[Tensor, "b c"], state: FastWeightState
    ) -> tuple[Float[Tensor, "b v"], None, FastWeightState]:
        """One step; there are no weightings over rows to return."""
        check_shape("control", control, state.weights.shape[0], self.to_interface.in_features)
        key, value, query, rate = self.to_interface(control).split(self._sizes, dim=-1)
        words, weights = fast_weight_step(
            state.weights,
            F.normalize(key, dim=-1),
            value,
            F.normalize(query, dim=-1),
            rate.sigmoid().squeeze(-1),
            rule=self.rule,
        )
        return words, None, FastWeightState(weights)
