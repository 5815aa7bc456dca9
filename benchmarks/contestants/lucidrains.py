"""lucidrains' `perceiver-pytorch`: its blocks, at this project's widths and weight sharing.

Its classes leave the widths of MLPs and the sharing of a block of several layers no choice, so the
blocks are put together here as its `PerceiverIO` does. Differences that stay: queries, keys and
values have no biases and one inner width, the mean of the two asked for (as many parameters and
operations); the MLPs are gated, with the hidden width that makes them as large.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange, repeat
from perceiver_pytorch.perceiver_pytorch import (
    GEGLU,
    Attention,
    FeedForward,
    PerceiverBlock,
    PreNorm,
    fourier_encode,
)
from torch import Tensor, nn

from benchmarks.configurations import Configuration, Grid, Text
from benchmarks.values import joined_tokens, random, raw_inputs


@dataclass
class Task:
    module: nn.Module
    arguments: dict[str, Any]

    def output(self, result: Any) -> Tensor:
        return result


class Model(nn.Module):
    """Input coding, one cross-attend, the latent layers, and a decoder if there is one."""

    def __init__(self, sizes: Configuration) -> None:
        super().__init__()
        self.sizes = sizes
        n, d, c = sizes.num_latents, sizes.latent_dim, sizes.token_dim
        self.latents = nn.Parameter(random("latents", n, d))
        blocks = {
            "dim": d,
            "cross_heads": sizes.cross_heads,
            "latent_heads": sizes.num_heads,
            "cross_dim_head": _head(sizes.cross_widths, sizes.cross_heads) if c else 8,
            "latent_dim_head": _head(sizes.latent_widths, sizes.num_heads),
        }
        self.cross = None
        if sizes.inputs:
            self.cross = PerceiverBlock(context_dim=c, self_per_cross_attn=0, **blocks)
            _widen(self.cross.cross_ff, sizes.cross_widening)
        self.layers = PerceiverBlock(
            has_cross_attn=False, self_per_cross_attn=sizes.num_layers, **blocks
        )
        for _, feed_forward in self.layers.self_attns:
            _widen(feed_forward, sizes.widening)
        for source in sizes.inputs.values():
            if isinstance(source, Text) and not sizes.tokens_given:
                self.embedding = nn.Embedding(source.vocab_size, source.width)
                self.positions = nn.Embedding(source.length, source.width)
        decoder = sizes.decoder
        self.queries = None
        if decoder is not None:
            e, heads = decoder.dim, decoder.num_heads
            attention = Attention(e, d, heads=heads, dim_head=_head(sizes.decoder_widths, heads))
            self.queries = nn.Parameter(random("queries", decoder.num_queries, e))
            self.read = PreNorm(e, attention, context_dim=d)
            self.feed_forward = _widen(PreNorm(e, FeedForward(e)), 1)
            self.linear = nn.Linear(e, decoder.out_dim)

    def tokens(self, inputs: Tensor) -> Tensor:
        (source,) = self.sizes.inputs.values()
        if isinstance(source, Text):
            places = torch.arange(inputs.shape[1], device=inputs.device)
            return self.embedding(inputs) + rearrange(self.positions(places), "n d -> () n d")
        return self._coded(inputs, source)

    def _coded(self, data: Tensor, source: Grid) -> Tensor:
        b, *axis, _ = data.shape
        lines = [
            torch.linspace(-1.0, 1.0, steps=size, device=data.device, dtype=data.dtype)
            for size in axis
        ]
        places = torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1)
        codes = fourier_encode(places, max(source.shape), source.num_bands)
        codes = repeat(rearrange(codes, "... n d -> ... (n d)"), "... -> b ...", b=b)
        return rearrange(torch.cat((data, codes), dim=-1), "b ... d -> b (...) d")

    def forward(self, inputs: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        batch = 1 if inputs is None else inputs.shape[0]
        x = repeat(self.latents, "n d -> b n d", b=batch)
        if self.cross is not None:
            tokens = inputs if self.sizes.tokens_given else self.tokens(inputs)
            x = self.cross(x, context=tokens, mask=mask)
        for _ in range(self.sizes.num_blocks):
            x = self.layers(x)
        if self.queries is None:
            return x
        queries = repeat(self.queries, "n d -> b n d", b=batch)
        read = self.read(queries, context=x)
        if self.sizes.decoder.query_residual:
            read = read + queries
        return self.linear(self.feed_forward(read) + read)


def _head(widths: tuple[int, int], heads: int) -> int:
    return sum(widths) // 2 // heads


def _widen(block: PreNorm, widening: int) -> PreNorm:
    """Give a gated MLP the parameters that a plain one of this widening has."""
    linear = block.fn.net[0]
    hidden = max(1, round(linear.in_features * widening * 2 / 3 / 8)) * 8
    assert isinstance(block.fn.net[1], GEGLU)
    block.fn.net[0] = nn.Linear(linear.in_features, 2 * hidden)
    block.fn.net[2] = nn.Linear(hidden, linear.in_features)
    return block


def build(sizes: Configuration) -> Task:
    model = Model(sizes)
    if not sizes.inputs:
        return Task(model, {})
    name, *_ = sizes.inputs
    inputs, mask = raw_inputs(sizes)[name], None
    if sizes.tokens_given:
        inputs, mask = joined_tokens(sizes)
    return Task(model, {"inputs": inputs, "mask": mask})
