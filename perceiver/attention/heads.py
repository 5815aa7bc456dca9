"""Heads, axis 5 of attention: the projections to queries, keys and values, and back."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from perceiver.attention.init import lecun_linear


class QKVHeads(nn.Module):
    """Multi-head projections (Vaswani et al. 2017, §3.2.2).

    Head h owns channels h·d … (h+1)·d − 1 after one projection for all heads.

    Args:
        query_dim: width of the queries that come in, and of the result unless `out_dim` is given.
        key_dim: width of the context that keys and values are made from.
        num_heads: heads; must divide `qk_dim` and `v_dim`.
        qk_dim: width of queries and keys over all heads.
        v_dim: width of the values over all heads.
        out_dim: width of the result.
        bias: whether the four projections have biases.

    Raises:
        ValueError: if `num_heads` does not divide a width.
    """

    def __init__(
        self,
        *,
        query_dim: int,
        key_dim: int,
        num_heads: int,
        qk_dim: int,
        v_dim: int,
        out_dim: int,
        bias: bool = True,
    ) -> None:
        super().__init__()
        for name, width in (("qk_dim", qk_dim), ("v_dim", v_dim)):
            if num_heads < 1 or width % num_heads:
                choices = [h for h in range(1, min(width, 64) + 1) if width % h == 0]
                raise ValueError(
                    f"num_heads={num_heads} does not divide {name}={width}: "
                    f"set num_heads to one of {choices}, or another {name}"
                )
        self.num_heads = num_heads
        self.to_query = lecun_linear(query_dim, qk_dim, bias=bias)
        self.to_key = lecun_linear(key_dim, qk_dim, bias=bias)
        self.to_value = lecun_linear(key_dim, v_dim, bias=bias)
        self.to_out = lecun_linear(v_dim, out_dim, bias=bias)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def project(
        self, query: Float[Tensor, "b q e"], context: Float[Tensor, "b k c"]
    ) -> tuple[Float[Tensor, "b h q d"], Float[Tensor, "b h k d"], Float[Tensor, "b h k d2"]]:
        """Queries from `query`, keys and values from `context`, split into heads."""
        return (
            self._split(self.to_query(query)),
            self._split(self.to_key(context)),
            self._split(self.to_value(context)),
        )

    def merge(self, read: Float[Tensor, "b h q d"]) -> Float[Tensor, "b q out"]:
        """The heads side by side, then the output projection."""
        return self.to_out(read.transpose(1, 2).flatten(-2))
