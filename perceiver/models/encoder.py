"""The Perceiver encoder: latents cross-attend the byte array and process what they read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from perceiver.models.blocks import AttentionBlock, naming
from perceiver.shapes import Float
from perceiver.types import ByteArray

SHARING = ("after_first", "all", "none")


class PerceiverEncoder(nn.Module):
    """`num_blocks` times: (perhaps) a cross-attend, then `num_layers` latent self-attentions.

    The first `num_cross_attends` blocks open with a cross-attend. As in the paper, by default the
    first cross-attend has weights of its own, the later ones share one set, and one latent block
    serves all (Jaegle et al. 2021, 3.1 and appendix B: sharing the first as well is unstable).

    Args:
        input_dim: width of the byte array.
        num_latents: latents.
        latent_dim: width of a latent.
        cross_attention: makes the cross-attention from (query_dim, key_dim).
        latent_attention: makes the self-attention of the latents likewise.
        num_blocks: latent blocks applied.
        num_layers: self-attention layers per block.
        num_cross_attends: cross-attends, 1 to `num_blocks`.
        cross_sharing: which cross-attends share weights: "after_first", "all" or "none".
        share_blocks: whether the latent blocks share weights.
        cross_widening: widening of the cross-attends' MLPs.
        latent_widening: widening of the latent layers' MLPs.
        activation: of the MLPs, "gelu_tanh" or "gelu".
        dropout: probability of dropping outputs of attentions and MLPs in training.
        init_std: standard deviation of the initial latents, a truncated normal (0.1 diverges).

    Raises:
        ValueError: for counts that do not fit together.
    """

    def __init__(
        self,
        *,
        input_dim: int,
        num_latents: int,
        latent_dim: int,
        cross_attention: Callable[..., nn.Module],
        latent_attention: Callable[..., nn.Module],
        num_blocks: int = 1,
        num_layers: int = 6,
        num_cross_attends: int = 1,
        cross_sharing: str = "after_first",
        share_blocks: bool = True,
        cross_widening: int = 1,
        latent_widening: int = 1,
        activation: str = "gelu_tanh",
        dropout: float = 0.0,
        init_std: float = 0.02,
    ) -> None:
        super().__init__()
        if num_latents < 1 or num_layers < 0:
            raise ValueError(
                f"num_latents={num_latents} must be at least 1 and num_layers={num_layers} at "
                "least 0"
            )
        if not 1 <= num_cross_attends <= num_blocks:
            raise ValueError(
                f"num_cross_attends={num_cross_attends} must lie between 1 and "
                f"num_blocks={num_blocks}: each opens a block"
            )
        if cross_sharing not in SHARING:
            raise ValueError(f"cross_sharing={cross_sharing!r} must be one of {', '.join(SHARING)}")
        self.latent_dim, self.num_blocks = latent_dim, num_blocks
        self.num_cross_attends, self.num_layers = num_cross_attends, num_layers
        self.latents = nn.Parameter(torch.empty(num_latents, latent_dim))
        nn.init.trunc_normal_(self.latents, std=init_std, a=-2 * init_std, b=2 * init_std)

        cross = partial(
            AttentionBlock,
            latent_dim,
            input_dim,
            attention=cross_attention,
            widening=cross_widening,
            activation=activation,
            dropout=dropout,
        )
        distinct = {"after_first": 2, "all": 1, "none": num_cross_attends}[cross_sharing]
        with naming("cross_attention"):
            self.cross_attends = nn.ModuleList(
                cross() for _ in range(min(distinct, num_cross_attends))
            )
        layer = partial(
            AttentionBlock,
            latent_dim,
            attention=latent_attention,
            widening=latent_widening,
            activation=activation,
            dropout=dropout,
        )
        with naming("latent_attention"):
            self.latent_blocks = nn.ModuleList(
                nn.Sequential(*(layer() for _ in range(num_layers)))
                for _ in range(1 if share_blocks else num_blocks)
            )
            for latent_layer in cast(Iterable[AttentionBlock], self.latent_blocks[0]):
                latent_layer.check_lengths(num_latents, num_latents)

    def check_lengths(self, num_tokens: int) -> None:
        """Refuse byte arrays that the cross-attention cannot read.

        Args:
            num_tokens: of the longest byte array that is meant to come.

        Raises:
            ValueError: if it is longer than a table of positions, say.
        """
        with naming("cross_attention"):
            for cross in cast(list[AttentionBlock], list(self.cross_attends)):
                cross.check_lengths(len(self.latents), num_tokens)

    def regions(self) -> list[nn.Module]:
        """The parts with the same shapes in every batch: latent blocks and cross-attends' MLPs.

        What serves several times is named once.
        """
        crosses = cast(list[AttentionBlock], list(self.cross_attends))
        return [*self.latent_blocks, *(cross.mlp for cross in crosses)]

    def forward(self, inputs: ByteArray) -> Float[Tensor, "b n d"]:
        """The latents after all blocks."""
        crosses = cast(list[AttentionBlock], list(self.cross_attends))
        mask = inputs.mask
        latents = self.latents[None]  # the same for every example, until they have read one
        context = None
        for block in range(self.num_blocks):
            if block < len(crosses):  # the last one made serves all blocks that follow
                context = crosses[block].context(inputs, mask)
            if block < self.num_cross_attends:
                latents = crosses[min(block, len(crosses) - 1)](latents, context)
            else:
                context = None  # what it holds of tokens, keys and values is let go
            latents = self.latent_blocks[min(block, len(self.latent_blocks) - 1)](latents)
        return latents
