"""krasserm's `perceiver-io`: its generic encoder and decoder with its own input adapters.

Its import name is this project's too, so this module runs in an interpreter of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from perceiver.model.core import (
    ClassificationOutputAdapter,
    InputAdapter,
    PerceiverDecoder,
    PerceiverEncoder,
    TiedTokenOutputAdapter,
    TokenInputAdapter,
    TrainableQueryProvider,
)
from perceiver.model.core.modules import SelfAttentionBlock
from perceiver.model.vision.image_classifier.backend import ImageInputAdapter
from torch import Tensor, nn

from benchmarks.configurations import Configuration, Text
from benchmarks.values import equalise, grouped_channels, joined_tokens, random, raw_inputs

ROLES = (
    (r"^encoder\.latent_provider\._query$", "latents"),
    (r"^encoder\.input_adapter\.txt_embedding\.weight$", "text.embedding"),
    (r"^encoder\.input_adapter\.pos_embedding\.weight$", "text.positions"),
    (r"^encoder\.cross_attn_1\.", "cross."),
    (r"^(encoder\.self_attn_1|stack)\.", "latent."),
    (r"^decoder\.output_query_provider\._query$", "decoder.queries"),
    (r"^decoder\.cross_attn\.", "decoder."),
    (r"^decoder\.output_adapter\.bias$", "decoder.linear.bias"),
    (r"^decoder\.output_adapter\.linear\.", "decoder.linear."),
    (r"0(\.module)?\.(q_norm|norm)\.", "norm."),
    (r"0(\.module)?\.kv_norm\.", "norm_context."),
    (r"0(\.module)?\.attention\.q_proj", "query"),
    (r"0(\.module)?\.attention\.k_proj", "key"),
    (r"0(\.module)?\.attention\.v_proj", "value"),
    (r"0(\.module)?\.attention\.o_proj", "out"),
    (r"1\.module\.0\.", "norm_mlp."),
    (r"1\.module\.1\.", "mlp.0."),
    (r"1\.module\.3\.", "mlp.2."),
)
READS_TOKENS = (
    "cross.norm_context.weight",
    "cross.norm_context.bias",
    "cross.key.weight",
    "cross.value.weight",
)


@dataclass
class Task:
    module: nn.Module
    arguments: dict[str, Any]

    def output(self, result: Any) -> Tensor:
        return result


class Given(InputAdapter):
    """Tokens as they are."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens


class Model(nn.Module):
    """Encoder, then the decoder if there is one; a mask is True on padding here."""

    def __init__(self, encoder: PerceiverEncoder, decoder: PerceiverDecoder | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, inputs: Tensor, pad_mask: Tensor | None = None) -> Tensor:
        latents = self.encoder(inputs, pad_mask)
        if self.decoder is None:
            return latents
        if isinstance(self.decoder.output_adapter, TiedTokenOutputAdapter):
            return self.decoder(latents, txt_embedding=self.encoder.input_adapter.txt_embedding)
        return self.decoder(latents)


class Stack(nn.Module):
    """The latent layers alone."""

    def __init__(self, layers: nn.Module, latents: Tensor) -> None:
        super().__init__()
        self.latents = nn.Parameter(latents)
        self.stack = layers

    def forward(self) -> Tensor:
        return self.stack(self.latents[None]).last_hidden_state


def build(sizes: Configuration) -> Task:
    """The model."""
    qk, v = sizes.latent_widths
    if not sizes.inputs:
        layers = SelfAttentionBlock(
            sizes.num_layers,
            sizes.num_heads,
            sizes.latent_dim,
            num_qk_channels=qk,
            num_v_channels=v,
            widening_factor=sizes.widening,
        )
        stack = Stack(layers, random("latents", sizes.num_latents, sizes.latent_dim))
        return Task(_equal(stack, {}), {})
    (name, source), *_ = sizes.inputs.items()
    raw, mask, channels = raw_inputs(sizes)[name], None, {}
    if sizes.tokens_given:
        adapter: InputAdapter = Given(sizes.token_dim)
        raw, mask = joined_tokens(sizes)
    elif isinstance(source, Text):
        adapter = TokenInputAdapter(source.vocab_size, source.length, source.width)
    else:
        adapter = ImageInputAdapter((*source.shape, source.channels), source.num_bands)
        channels = dict.fromkeys(READS_TOKENS, grouped_channels(source))
    cross_qk, cross_v = sizes.cross_widths
    encoder = PerceiverEncoder(
        adapter,
        sizes.num_latents,
        sizes.latent_dim,
        num_cross_attention_heads=sizes.cross_heads,
        num_cross_attention_qk_channels=cross_qk,
        num_cross_attention_v_channels=cross_v,
        cross_attention_widening_factor=sizes.cross_widening,
        num_self_attention_heads=sizes.num_heads,
        num_self_attention_qk_channels=qk,
        num_self_attention_v_channels=v,
        num_self_attention_layers_per_block=sizes.num_layers,
        num_self_attention_blocks=sizes.num_blocks,
        self_attention_widening_factor=sizes.widening,
    )
    model = _equal(Model(encoder, _decoder(sizes)), channels)
    return Task(model, {"inputs": raw, "pad_mask": None if mask is None else ~mask})


def _decoder(sizes: Configuration) -> PerceiverDecoder | None:
    decoder = sizes.decoder
    if decoder is None:
        return None
    qk, v = sizes.decoder_widths
    return PerceiverDecoder(
        TiedTokenOutputAdapter(decoder.out_dim)
        if decoder.tied_to
        else ClassificationOutputAdapter(decoder.out_dim, decoder.dim),
        TrainableQueryProvider(decoder.num_queries, decoder.dim),
        sizes.latent_dim,
        num_cross_attention_heads=decoder.num_heads,
        num_cross_attention_qk_channels=qk,
        num_cross_attention_v_channels=v,
        cross_attention_residual=decoder.query_residual,
    )


def _equal(module: nn.Module, channels: dict[str, Tensor]) -> nn.Module:
    equalise(module, role_of, channels)
    return module


def role_of(name: str) -> str:
    for pattern, role in ROLES:
        name = re.sub(pattern, role, name)
    return name
