"""Decoders: from latents to outputs (b, o, k), or to several of them by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import cast

from torch import Tensor, nn

from perceiver.models.blocks import AttentionBlock, naming
from perceiver.models.queries import Queries
from perceiver.ops.init import lecun_linear
from perceiver.shapes import Float
from perceiver.types import ByteArray


class Decoder(nn.Module, ABC):
    """Base of decoders: latents (b, n, d) → outputs (b, o, k).

    `asked`: modalities whose elements it answers for one by one; it is then given the byte array.
    """

    asked: tuple[str, ...] = ()

    def check_lengths(self, num_latents: int) -> None:
        """Raises ValueError for so many latents as the decoder cannot read."""
        return

    def check_inputs(self, modalities: Mapping[str, int], channels: int) -> None:
        """Refuse a byte array that the decoder cannot ask about.

        Args:
            modalities: that the model reads, each with the most tokens that are meant to come.
            channels: width of the byte array.

        Raises:
            ValueError: if it lacks a modality, or has another width.
        """
        return

    def regions(self) -> list[nn.Module]:
        """The parts with the same shapes in every batch: all of it, unless it asks of inputs."""
        return [] if self.asked else [self]

    @abstractmethod
    def forward(
        self, latents: Float[Tensor, "b n d"], inputs: ByteArray | None = None
    ) -> Float[Tensor, "b o k"] | dict[str, Tensor]: ...


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

    def forward(
        self, latents: Float[Tensor, "b n d"], inputs: ByteArray | None = None
    ) -> Float[Tensor, "b o k"]:
        return self.linear(self.norm(latents.mean(1, keepdim=True)))


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
        self.queries, self.asked = queries, queries.asked
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

    def check_inputs(self, modalities: Mapping[str, int], channels: int) -> None:
        with naming("decoder.queries"):
            self.queries.check_inputs(modalities, channels)

    def forward(
        self, latents: Float[Tensor, "b n d"], inputs: ByteArray | None = None
    ) -> Float[Tensor, "b o k"]:
        queries = self.queries(latents.shape[0], inputs)
        return self.linear(self.cross_attend(queries, latents))


class Heads(Decoder):
    """Several decoders of the same latents, whose outputs come by name.

    Args:
        latent_dim: width of a latent.
        heads: name → makes the decoder from latent_dim=.

    Raises:
        ValueError: without heads.
    """

    def __init__(self, *, latent_dim: int, heads: Mapping[str, Callable[..., Decoder]]) -> None:
        super().__init__()
        if not heads:
            raise ValueError("model.decoder.heads is empty: name at least one")
        self.heads = nn.ModuleDict()
        for name, make in heads.items():
            with _in_head(name):
                self.heads[name] = make(latent_dim=latent_dim)
        decoders = self._decoders().values()
        self.asked = tuple(sorted({name for decoder in decoders for name in decoder.asked}))

    def _decoders(self) -> dict[str, Decoder]:
        return {name: cast(Decoder, decoder) for name, decoder in self.heads.items()}

    def check_lengths(self, num_latents: int) -> None:
        for name, decoder in self._decoders().items():
            with _in_head(name):
                decoder.check_lengths(num_latents)

    def check_inputs(self, modalities: Mapping[str, int], channels: int) -> None:
        for name, decoder in self._decoders().items():
            with _in_head(name):
                decoder.check_inputs(modalities, channels)

    def regions(self) -> list[nn.Module]:
        return [part for decoder in self._decoders().values() for part in decoder.regions()]

    def forward(
        self, latents: Float[Tensor, "b n d"], inputs: ByteArray | None = None
    ) -> dict[str, Tensor]:
        return {
            name: decoder(latents, inputs if decoder.asked else None)
            for name, decoder in self._decoders().items()
        }


@contextmanager
def _in_head(name: str) -> Iterator[None]:
    """A refusal within names the head that it concerns."""
    try:
        yield
    except ValueError as error:
        where = f"model.decoder.heads.{name}"
        raise ValueError(str(error).replace("model.decoder", where, 1)) from error
