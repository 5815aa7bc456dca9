"""Decoders: from latents to outputs (b, o, k)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from perceiver.models.blocks import AttentionBlock, naming
from perceiver.ops.init import lecun_linear
from perceiver.shapes import Float


class Decoder(nn.Module, ABC):
    """Base of decoders: latents (b, n, d) → outputs (b, o, k)."""

    def check_lengths(self, num_latents: int) -> None:
        """Raises ValueError for so many latents as the decoder cannot read."""
        return

    @abstractmethod
    def forward(self, latents: Float[Tensor, "b n d"]) -> Float[Tensor, "b o k"]: ...


class MeanPoolDecoder(Decoder):
    """One output: a linear layer on the mean latent (Jaegle et al. 2021, 3.1).

    Args:
        latent_dim: width of a latent.
        out_dim: numbers an output holds, the classes say.
        norm: a LayerNorm on the mean first; the published model has none.
    """

    def __init__(self, *, latent_dim: int, out_dim: int, norm: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(latent_dim) if norm else nn.Identity()
        self.linear = lecun_linear(latent_dim, out_dim)

    def forward(self, latents: Float[Tensor, "b n d"]) -> Float[Tensor, "b o k"]:
        return self.linear(self.norm(latents.mean(1, keepdim=True)))


class Queries(nn.Module, ABC):
    """Base of what makes output queries (b, o, e) for a batch.

    `num_queries`: how many, o. `dim`: their width, e.
    """

    num_queries: int
    dim: int

    @abstractmethod
    def forward(self, batch_size: int) -> Float[Tensor, "#b o e"]:
        """The queries; a batch of 1 serves all examples, and is normed and projected once."""


class LearnedQueries(Queries):
    """Output queries that are learned and the same for every example.

    Args:
        num_queries: outputs, o.
        dim: width of a query, e.
    """

    def __init__(self, *, num_queries: int, dim: int) -> None:
        super().__init__()
        self.num_queries, self.dim = num_queries, dim
        self.queries = nn.Parameter(torch.empty(num_queries, dim))
        nn.init.trunc_normal_(self.queries, std=0.02, a=-0.04, b=0.04)

    def forward(self, batch_size: int) -> Float[Tensor, "#b o e"]:
        return self.queries[None]


class QueryDecoder(Decoder):
    """Output queries cross-attend the latents, then a linear layer (Jaegle et al. 2022, 3.2).

    Args:
        latent_dim: width of a latent.
        out_dim: numbers an output holds.
        queries: makes the queries of a batch.
        attention: makes the cross-attention from (query_dim, key_dim).
        widening: widening of the MLP.
        activation: of the MLP, "gelu_tanh" or "gelu".
        query_residual: add the queries to what they read; the published classifier does not.
    """

    def __init__(
        self,
        *,
        latent_dim: int,
        out_dim: int,
        queries: Queries,
        attention: Callable[..., nn.Module],
        widening: int = 1,
        activation: str = "gelu_tanh",
        query_residual: bool = False,
    ) -> None:
        super().__init__()
        self.queries = queries
        with naming("decoder.attention"):
            self.cross_attend = AttentionBlock(
                queries.dim,
                latent_dim,
                attention=attention,
                widening=widening,
                activation=activation,
                query_residual=query_residual,
            )
        self.linear = lecun_linear(queries.dim, out_dim)

    def check_lengths(self, num_latents: int) -> None:
        with naming("decoder.attention"):
            self.cross_attend.check_lengths(self.queries.num_queries, num_latents)

    def forward(self, latents: Float[Tensor, "b n d"]) -> Float[Tensor, "b o k"]:
        return self.linear(self.cross_attend(self.queries(latents.shape[0]), latents))
