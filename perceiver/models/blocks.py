"""The Perceiver block: pre-norm attention and an MLP, each with a residual."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from perceiver.attention.attention import Attention
from perceiver.attention.context import Context
from perceiver.ops.init import lecun_linear
from perceiver.ops.recompute import is_worthwhile, recomputable, recompute
from perceiver.shapes import Bool, Float
from perceiver.types import ByteArray

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
}


class MLP(nn.Sequential):
    """Two linear layers with a GELU between.

    Args:
        dim: width in and out.
        widening: width of the hidden layer over `dim`; 1 in the released configs.
        activation: "gelu_tanh", the form that the released Perceivers have, or "gelu", the exact
            one, which on CPUs takes a third of the time.
        dropout: probability of dropping an output in training.

    Raises:
        ValueError: for an unknown activation.
    """

    def __init__(
        self,
        dim: int,
        *,
        widening: int = 1,
        activation: str = "gelu_tanh",
        dropout: float = 0.0,
    ) -> None:
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r} must be one of {', '.join(ACTIVATIONS)}")
        super().__init__(
            lecun_linear(dim, widening * dim),
            ACTIVATIONS[activation](),
            lecun_linear(widening * dim, dim),
            nn.Dropout(dropout),
        )

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        widen, activation, narrow, dropout = self
        return dropout(narrow(recomputable(activation, widen(x))))


class AttentionBlock(nn.Module):
    """z' = z + attention(LN z, LN x);  z'' = z' + MLP(LN z').

    With a context of its own width this is the Perceiver's cross-attend, without one its latent
    self-attention layer (Jaegle et al. 2021, appendix E).

    Args:
        dim: width of the queries z.
        context_dim: width of the context x; None = self-attention, x = z under the same norm.
        attention: makes the attention from (query_dim, key_dim); its forward takes
            (query, context, mask=, need_weights=) and returns an object with `out` and `weights`.
        widening: widening of the MLP.
        activation: of the MLP, "gelu_tanh" or "gelu".
        dropout: probability of dropping an output of attention or MLP in training.
        query_residual: add z to what attention returns; Perceiver IO's decoders do without.
    """

    def __init__(
        self,
        dim: int,
        context_dim: int | None = None,
        *,
        attention: Callable[..., nn.Module],
        widening: int = 1,
        activation: str = "gelu_tanh",
        dropout: float = 0.0,
        query_residual: bool = True,
    ) -> None:
        super().__init__()
        self.query_residual = query_residual
        self.norm = nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(context_dim) if context_dim else None
        self.attention = attention(query_dim=dim, key_dim=context_dim or dim)
        self.dropout = nn.Dropout(dropout)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = MLP(dim, widening=widening, activation=activation, dropout=dropout)

    def forward(
        self,
        latents: Float[Tensor, "#b n d"],
        context: Float[Tensor, "b m c"] | Context | None = None,
        *,
        mask: Bool[Tensor, "b m"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Latents that know of the context.

        Args:
            latents: a batch of 1 serves all examples.
            context: what to attend to, a tensor or `self.context` of a byte array.
            mask: of a tensor: True = may be attended to.
        """
        if not is_worthwhile(latents):
            return self._forward(latents, context, mask)
        with recompute():
            return self._forward(latents, context, mask)

    def _forward(
        self, latents: Tensor, context: Tensor | Context | None, mask: Tensor | None
    ) -> Tensor:
        query = _normed(self.norm, latents)
        if isinstance(context, Tensor) and self.norm_context is not None:
            context = _normed(self.norm_context, context)
        read = self.dropout(self.attention(query, context, mask=mask).out)
        latents = latents + read if self.query_residual else read
        return latents + self.mlp(_normed(self.norm_mlp, latents))

    def check_lengths(self, queries: int, keys: int) -> None:
        """Raises ValueError if its attention is one of ours and cannot serve such lengths."""
        if isinstance(self.attention, Attention):
            self.attention.check_lengths(queries, keys)

    def context(self, inputs: ByteArray, mask: Bool[Tensor, "b m"] | None = None) -> Context:
        """The byte array under this block's norm, for any number of forwards of the block.

        Args:
            inputs: the byte array.
            mask: `inputs.mask`, which several blocks may share.
        """
        mask = inputs.mask if mask is None else mask
        assert isinstance(self.norm_context, nn.LayerNorm), "a block of self-attention"
        return Context(list(inputs.segments.values()), self.norm_context, mask)


def _normed(norm: nn.Module, x: Tensor) -> Tensor:
    """The norm of x, under autocast rounded once: each linear layer that reads it would do so."""
    device = x.device.type
    if device == "meta" or not torch.is_autocast_enabled(device) or x.dtype == torch.float64:
        return recomputable(norm, x)
    return norm(x).to(torch.get_autocast_dtype(device))


@contextmanager
def naming(role: str) -> Iterator[None]:
    """A refusal within names the part of the model that it concerns."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"model.{role}: {error}") from error
