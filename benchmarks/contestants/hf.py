"""Hugging Face `transformers`: its PerceiverModel with its own preprocessors and decoders."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PerceiverConfig, PerceiverModel
from transformers.models.perceiver import modeling_perceiver as hf

from benchmarks.configurations import Configuration, Grid, Text
from benchmarks.contestants import NotApplicable
from benchmarks.values import equalise, grouped_channels, joined_tokens, random, raw_inputs

ROLES = (
    (r"^perceiver\.", ""),
    (r"^embeddings\.latents$", "latents"),
    (r"^input_preprocessor\.embeddings\.weight$", "text.embedding"),
    (r"^input_preprocessor\.position_embeddings\.weight$", "text.positions"),
    (r"^encoder\.cross_attention\.", "cross."),
    (r"^(encoder\.self_attends|stack)\.", "latent."),
    (r"^(decoder\.)*output_position_encodings\.position_embeddings$", "decoder.queries"),
    (r"^(decoder\.)*decoding_cross_attention\.", "decoder."),
    (r"^(decoder\.)*final_layer\.", "decoder.linear."),
    (r"^embedding_decoder\.bias$", "decoder.linear.bias"),
    (r"attention\.self\.layernorm1", "norm"),
    (r"attention\.self\.layernorm2", "norm_context"),
    (r"attention\.self\.", ""),
    (r"attention\.output\.dense", "out"),
    (r"layernorm", "norm_mlp"),
    (r"mlp\.dense1", "mlp.0"),
    (r"mlp\.dense2", "mlp.2"),
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
        if isinstance(result, Tensor):
            return result
        logits = result.logits
        return result.last_hidden_state if logits is None else logits


class Stack(nn.Module):
    """The latent layers alone."""

    def __init__(self, layers: nn.ModuleList, latents: Tensor) -> None:
        super().__init__()
        self.latents = nn.Parameter(latents)
        self.stack = layers

    def forward(self) -> Tensor:
        latents = self.latents[None]
        for layer in self.stack:
            latents = layer(latents)[0]
        return latents


class MaskedLanguageModel(nn.Module):
    """What `PerceiverForMaskedLM` is, without its fixed widths of the decoder."""

    def __init__(self, config: PerceiverConfig, sizes: Configuration) -> None:
        super().__init__()
        self.perceiver = PerceiverModel(
            config,
            input_preprocessor=hf.PerceiverTextPreprocessor(config),
            decoder=_text_decoder(config, sizes),
        )
        self.embedding_decoder = hf.PerceiverEmbeddingDecoder(config)

    def forward(self, inputs: Tensor) -> Tensor:
        read = self.perceiver(inputs=inputs).logits
        return self.embedding_decoder(read, self.perceiver.input_preprocessor.embeddings)


def build(sizes: Configuration) -> Task:
    """The model."""
    config = _config(sizes)
    if not sizes.inputs:
        layers = hf.PerceiverEncoder(config, kv_dim=8).self_attends
        module: nn.Module = Stack(layers, random("latents", sizes.num_latents, sizes.latent_dim))
        equalise(module, role_of)
        return Task(module, {})
    (name, source), *_ = sizes.inputs.items()
    raw, mask, channels = raw_inputs(sizes)[name], None, {}
    decoder = sizes.decoder
    if sizes.tokens_given:
        raw, mask = joined_tokens(sizes)
    if isinstance(source, Text):
        model: nn.Module = MaskedLanguageModel(config, sizes)
        equalise(model, role_of)
        return Task(model, {"inputs": raw})
    model = PerceiverModel(
        config,
        input_preprocessor=None if sizes.tokens_given else _preprocessor(config, source),
        decoder=None
        if decoder is None
        else hf.PerceiverClassificationDecoder(
            config,
            num_channels=decoder.dim,
            use_query_residual=decoder.query_residual,
            trainable_position_encoding_kwargs={"num_channels": decoder.dim, "index_dims": 1},
        ),
    )
    if not sizes.tokens_given:
        channels = dict.fromkeys(READS_TOKENS, grouped_channels(source))
        if len(source.shape) == 2:
            raw = raw.permute(0, 3, 1, 2).contiguous()
    equalise(model, role_of, channels)
    return Task(model, {"inputs": raw, "attention_mask": mask})


def _config(sizes: Configuration) -> PerceiverConfig:
    # One pair of widths serves the cross-attend and the latent layers; None means each its own.
    latent, cross = sizes.latent_widths, sizes.cross_widths
    widths: tuple[int | None, int | None] = cross
    if cross != latent and sizes.num_layers:
        widths = (None, None)
        if cross != (sizes.token_dim,) * 2 or latent != (sizes.latent_dim,) * 2:
            raise NotApplicable("PerceiverModel has one width for cross-attend and latent layers")
    return PerceiverConfig(
        num_latents=sizes.num_latents,
        d_latents=sizes.latent_dim,
        d_model=sizes.token_dim,
        num_blocks=sizes.num_blocks,
        num_self_attends_per_block=sizes.num_layers,
        num_self_attention_heads=sizes.num_heads,
        num_cross_attention_heads=sizes.cross_heads,
        qk_channels=widths[0],
        v_channels=widths[1],
        self_attention_widening_factor=sizes.widening,
        cross_attention_widening_factor=sizes.cross_widening,
        attention_probs_dropout_prob=0.0,
        num_labels=sizes.decoder.out_dim if sizes.decoder else 2,
        vocab_size=262,
        max_position_embeddings=sizes.num_tokens,
    )


def _preprocessor(config: PerceiverConfig, source: Grid) -> nn.Module:
    fourier = {
        "concat_pos": True,
        "max_resolution": source.shape,
        "num_bands": source.num_bands,
        "sine_only": False,
    }
    if len(source.shape) == 2:
        return hf.PerceiverImagePreprocessor(
            config,
            prep_type="pixels",
            spatial_downsample=1,
            fourier_position_encoding_kwargs=fourier,
        )
    return hf.PerceiverAudioPreprocessor(
        config, samples_per_patch=source.channels, fourier_position_encoding_kwargs=fourier
    )


def _text_decoder(config: PerceiverConfig, sizes: Configuration) -> nn.Module:
    decoder, (qk, v) = sizes.decoder, sizes.decoder_widths
    return hf.PerceiverBasicDecoder(
        config,
        output_num_channels=config.d_latents,
        output_index_dims=decoder.num_queries,
        num_channels=decoder.dim,
        qk_channels=qk,
        v_channels=v,
        num_heads=decoder.num_heads,
        use_query_residual=decoder.query_residual,
        final_project=False,
        trainable_position_encoding_kwargs={
            "num_channels": decoder.dim,
            "index_dims": decoder.num_queries,
        },
    )


def role_of(name: str) -> str:
    for pattern, role in ROLES:
        name = re.sub(pattern, role, name)
    return name
