"""Multi-head attentions by name: a few lines each over `Attention`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perceiver.attention.attention import Attention


class MultiHeadAttention(Attention):
    """Scaled dot-product attention in heads (Vaswani et al. 2017, 3.2.2).

    Args:
        query_dim: width of the queries, and of the result unless `out_dim` is given.
        key_dim: width of the context; None = `query_dim`.
        num_heads: heads.
        num_kv_heads: heads of keys and values; None = `num_heads` (Ainslie et al. 2023).
        qk_norm: "none", "rms", "layer" or "l2".
        is_gated: gate what is read by the query (Qiu et al. 2025).
        is_talking: mix the heads' scores and weights (Shazeer et al. 2020).
        options: member → its options.
        common: any other option of `Attention`, which refuses those that it does not have.
    """

    def __init__(
        self,
        query_dim: int,
        key_dim: int | None = None,
        *,
        num_heads: int = 8,
        num_kv_heads: int | None = None,
        qk_norm: str = "none",
        is_gated: bool = False,
        is_talking: bool = False,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        **common: Any,
    ) -> None:
        own = {
            "num_kv_heads": num_kv_heads,
            "qk_norm": qk_norm,
            "is_gated": is_gated,
            "is_talking": is_talking,
        }
        options = {"qkv": own, **(options or {})}
        super().__init__(query_dim, key_dim, num_heads=num_heads, options=options, **common)


class LinearAttention(Attention):
    """φ(q)·φ(k) / Σ φ(q)·φ(k), φ = elu + 1, without a (q, k) matrix (Katharopoulos et al. 2020).

    Args:
        query_dim: width of the queries and the result.
        key_dim: width of the context; None = `query_dim`.
        num_heads: heads.
        is_causal: attend to what is not later.
        kernel: "auto", or the name of one.
    """

    def __init__(
        self,
        query_dim: int,
        key_dim: int | None = None,
        *,
        num_heads: int = 8,
        is_causal: bool = False,
        kernel: str = "auto",
    ) -> None:
        super().__init__(
            query_dim,
            key_dim,
            num_heads=num_heads,
            score="feature_dot",
            pattern="causal" if is_causal else "full",
            normaliser="sum",
            kernel=kernel,
        )


class CosineAttention(Attention):
    """β cos(q, k), projected in heads (Liu et al. 2022, Swin v2, eq. 2).

    Args:
        query_dim: width of the queries and the result.
        key_dim: width of the context; None = `query_dim`.
        num_heads: heads.
        scale: β: a number, "learned", or "log", one per head and at most 100.
        kernel: "auto", or the name of one.
    """

    def __init__(
        self,
        query_dim: int,
        key_dim: int | None = None,
        *,
        num_heads: int = 8,
        scale: float | str = "log",
        kernel: str = "auto",
    ) -> None:
        super().__init__(
            query_dim,
            key_dim,
            num_heads=num_heads,
            score="cosine",
            options={"cosine": {"scale": scale}},
            kernel=kernel,
        )


class DifferentialAttention(Attention):
    """The difference of two softmaxes per head (Ye et al. 2024, eq. 1 to 3).

    Args:
        query_dim: width of the queries and the result.
        key_dim: width of the context; None = `query_dim`.
        num_heads: pairs of heads.
        depth: of the layer, from 0.
        bias: whether the projections have biases.
        kernel: "auto", or the name of one.
    """

    def __init__(
        self,
        query_dim: int,
        key_dim: int | None = None,
        *,
        num_heads: int = 4,
        depth: int = 0,
        bias: bool = False,
        kernel: str = "auto",
    ) -> None:
        super().__init__(
            query_dim,
            key_dim,
            num_heads=num_heads,
            bias=bias,
            heads="differential",
            options={"differential": {"depth": depth}},
            kernel=kernel,
        )


class StandAloneSelfAttention(Attention):
    """y_ij = Σ softmax(q·k + q·r) v over the size × size window (Ramachandran et al. 2019, eq. 3).

    Elements come row by row, (b, height · width, dim); no scale, no biases, no output projection.

    Args:
        dim: width of the elements and the result.
        grid: (height, width).
        size: k, odd.
        num_heads: heads, each of an even width.
        border: "mask", or "zero_pad": read zeros past the edge.
        kernel: "auto", or the name of one.
    """

    def __init__(
        self,
        dim: int,
        *,
        grid: Sequence[int],
        size: int = 7,
        num_heads: int = 8,
        border: str = "mask",
        kernel: str = "auto",
    ) -> None:
        super().__init__(
            dim,
            num_heads=num_heads,
            bias=False,
            position="relative_table2d",
            pattern="local2d",
            options={
                "dot": {"scale": 1.0},
                "qkv": {"has_out_proj": False},
                "relative_table2d": {"grid": grid, "size": size},
                "local2d": {"grid": grid, "size": size, "border": border},
            },
            kernel=kernel,
        )
