"""This project, through its public interface."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from benchmarks.configurations import Configuration, Grid, Text
from benchmarks.configurations import Decoder as DecoderSizes
from benchmarks.values import equalise, random, raw_inputs, raw_masks
from perceiver.adapters import ArrayAdapter, PaddingFusion, PixelAdapter, TokenAdapter
from perceiver.adapters.adapter import Adapter
from perceiver.attention import Attention
from perceiver.attention.kernels import sdpa
from perceiver.models import (
    AttentionBlock,
    Decoder,
    LearnedQueries,
    Perceiver,
    PerceiverEncoder,
    QueryDecoder,
    blocks,
)
from perceiver.ops import matmul as products
from perceiver.ops import recompute as lean
from perceiver.positions import ConstantPositions, FourierPositions, LearnedPositions

ROLES = (
    (r"^encoder\.latents$", "latents"),
    (r"^encoder\.cross_attends\.0\.", "cross."),
    (r"^encoder\.latent_blocks\.0\.", "latent."),
    (r"^decoder\.queries\.queries$", "decoder.queries"),
    (r"^decoder\.cross_attend\.", "decoder."),
    (r"attention\.heads\.to_query", "query"),
    (r"attention\.heads\.to_key", "key"),
    (r"attention\.heads\.to_value", "value"),
    (r"attention\.heads\.to_out", "out"),
    (r"^fusion\.padding\.", "padding."),
    (r"^adapters\.(\w+)\.embedding\.weight$", r"\1.embedding"),
    (r"^adapters\.(\w+)\.position\.tables\.0$", r"\1.positions"),
    (r"^stack\.", "latent."),
)


@dataclass
class Task:
    module: nn.Module
    arguments: dict[str, Any]

    def output(self, result: Tensor) -> Tensor:
        return result


class AsTheyAre(Decoder):
    """The latents as outputs."""

    def forward(self, latents: Tensor) -> Tensor:
        return latents


class Stack(nn.Module):
    """The latent layers alone."""

    def __init__(self, blocks: list[nn.Module], latents: Tensor) -> None:
        super().__init__()
        self.latents = nn.Parameter(latents)
        self.stack = nn.ModuleList(blocks)

    def forward(self) -> Tensor:
        latents = self.latents[None]
        for block in self.stack:
            latents = block(latents)
        return latents


def _never(*_: Any) -> bool:
    return False


def _without_sharing(module: nn.Module, configuration: Configuration) -> None:
    def one_each(_: nn.Module, given: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
        latents, context = given
        return latents.expand(configuration.batch, -1, -1).contiguous(), context

    module.encoder.cross_attends[0].register_forward_pre_hook(one_each)


def _without_cache(module: nn.Module, configuration: Configuration) -> None:
    def forget(*_: Any) -> None:
        for part in module.modules():
            if isinstance(part, ConstantPositions):
                part._cache.clear()

    module.register_forward_pre_hook(forget)


def _without_onednn(module: nn.Module, configuration: Configuration) -> None:
    products.MKL_IS_SLOW = False


def _without_batches(module: nn.Module, configuration: Configuration) -> None:
    products.NEVER_ROUNDS = False


def _without_blocks(module: nn.Module, configuration: Configuration) -> None:
    sdpa._blocks_pay = _never


def _recompute_never(module: nn.Module, configuration: Configuration) -> None:
    blocks.pays = _never


def _recompute_always(module: nn.Module, configuration: Configuration) -> None:
    lean.WORTHWHILE = 0


def _nothing(module: nn.Module, configuration: Configuration) -> None:
    """Nothing is to change."""


# What changes a step and not its answer, in this process for good: the first queries for each
# example; position codes computed anew in every step; all products by the library that torch takes
# itself, or all but linear layers' by it; attention never in blocks of our own; norms and
# activations kept or computed again, whatever their size; nothing at all, which tells how far two
# processes differ.
TRICKS: dict[str, dict[str, Callable[[nn.Module, Configuration], None]]] = {
    "without": {
        "sharing": _without_sharing,
        "cache": _without_cache,
        "onednn": _without_onednn,
        "batches": _without_batches,
        "blocks": _without_blocks,
    },
    "recompute": {"never": _recompute_never, "always": _recompute_always},
    "measured": {"again": _nothing},
}


def build(configuration: Configuration, **options: Any) -> Task:
    """The model of a configuration.

    Args:
        configuration: its sizes.
        options: "kernel" of all attentions; "cross_attention.X", "latent_attention.X" and
            "decoder_attention.X" for any X that an attention takes; "encoder.X"; those of `TRICKS`.

    Raises:
        ValueError: for another value of a trick.
    """
    tricks = {name: options.pop(name) for name in TRICKS if name in options}
    for name, value in tricks.items():
        if value not in TRICKS[name]:
            raise ValueError(f"{name}={value}: choose {' or '.join(TRICKS[name])}")
    task = _build(configuration, options)
    for name, value in tricks.items():
        TRICKS[name][value](task.module, configuration)
    return task


def _build(configuration: Configuration, options: Mapping[str, Any]) -> Task:
    extra: dict[str, dict[str, Any]] = {}
    for path, value in options.items():
        part, _, key = path.rpartition(".")
        for role in [part] if part else ("cross_attention", "latent_attention"):
            extra.setdefault(role, {})[key] = value
    sizes = configuration
    qk, v = sizes.latent_widths
    latent_attention = partial(
        Attention,
        num_heads=sizes.num_heads,
        **{"qk_dim": qk, "v_dim": v} | extra.get("latent_attention", {}),
    )
    encoder = {"activation": "gelu"} | extra.get("encoder", {})
    if not sizes.inputs:
        activation = encoder["activation"]
        block = partial(
            AttentionBlock, sizes.latent_dim, attention=latent_attention, activation=activation
        )
        layers = [block(widening=sizes.widening) for _ in range(sizes.num_layers)]
        module: nn.Module = Stack(layers, random("latents", sizes.num_latents, sizes.latent_dim))
        equalise(module, role_of)
        return Task(module, {})
    qk, v = sizes.cross_widths
    module = Perceiver(
        adapters={name: _adapter(source) for name, source in sizes.inputs.items()},
        fusion=partial(PaddingFusion, min_padding=sizes.min_padding),
        encoder=partial(
            PerceiverEncoder,
            num_latents=sizes.num_latents,
            latent_dim=sizes.latent_dim,
            num_blocks=sizes.num_blocks,
            num_layers=sizes.num_layers,
            cross_widening=sizes.cross_widening,
            latent_widening=sizes.widening,
            **encoder,
        ),
        cross_attention=partial(
            Attention,
            num_heads=sizes.cross_heads,
            **{"qk_dim": qk, "v_dim": v} | extra.get("cross_attention", {}),
        ),
        latent_attention=latent_attention,
        decoder=_decoder(sizes, extra.get("decoder_attention", {})),
    )
    tied = {}
    if sizes.decoder is not None and sizes.decoder.tied_to:
        tied["decoder.linear.weight"] = f"{sizes.decoder.tied_to}.embedding"
    equalise(module, lambda name: tied.get(name) or role_of(name))
    inputs = {name: _layout(sizes.inputs[name], raw) for name, raw in raw_inputs(sizes).items()}
    return Task(module, {"inputs": inputs, "masks": raw_masks(sizes)})


def role_of(name: str) -> str:
    for pattern, role in ROLES:
        name = re.sub(pattern, role, name)
    return name


def _adapter(source: Grid | Text) -> Adapter:
    if isinstance(source, Text):
        learned = partial(LearnedPositions, table_dim=source.width, add=True)
        sizes = {"vocab_size": source.vocab_size, "max_length": source.length}
        return TokenAdapter(dim=source.width, position=learned, **sizes)
    # Where an example ends early, its places are still counted on the full grid.
    fourier = partial(FourierPositions, num_bands=source.num_bands, absolute=bool(source.kept))
    if len(source.shape) == 2:
        return PixelAdapter(channels=source.channels, size=source.shape, position=fourier)
    return ArrayAdapter(channels=source.channels, shape=source.shape, position=fourier)


def _layout(source: Grid | Text, raw: Tensor) -> Tensor:
    if isinstance(source, Grid) and len(source.shape) == 2:
        return raw.permute(0, 3, 1, 2).contiguous()
    return raw


def _decoder(sizes: Configuration, extra: dict[str, Any]) -> Any:
    decoder: DecoderSizes | None = sizes.decoder
    if decoder is None:
        return lambda latent_dim: AsTheyAre()
    qk, v = sizes.decoder_widths
    return partial(
        QueryDecoder,
        out_dim=decoder.out_dim,
        queries=LearnedQueries(num_queries=decoder.num_queries, dim=decoder.dim),
        attention=partial(
            Attention, num_heads=decoder.num_heads, **{"qk_dim": qk, "v_dim": v} | extra
        ),
        activation="gelu",
        query_residual=decoder.query_residual,
    )
