"""What is measured: models by their sizes alone, the work that they are, and the shipped list."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

TRAINING = 3  # a training step is counted as three forward passes: backward has two products a one


@dataclass(frozen=True)
class Grid:
    """Numbers on a grid, with Fourier codes of every axis beside them.

    Args:
        shape: lengths of the axes.
        channels: numbers an element holds.
        num_bands: Fourier frequencies an axis.
        kept: the part of the first axis that each example has, in (0, 1]; empty = all of it.
    """

    shape: tuple[int, ...]
    channels: int
    num_bands: int
    kept: tuple[float, ...] = ()

    @property
    def num_tokens(self) -> int:
        return math.prod(self.shape)

    @property
    def width(self) -> int:
        return self.channels + len(self.shape) * (2 * self.num_bands + 1)


@dataclass(frozen=True)
class Text:
    """Ids looked up in an embedding, with learned positions added.

    Args:
        length: ids an example holds.
        width: of the embedding.
        vocab_size: number of ids.
        kept: as in `Grid`.
    """

    length: int
    width: int
    vocab_size: int = 262
    kept: tuple[float, ...] = ()

    @property
    def num_tokens(self) -> int:
        return self.length


@dataclass(frozen=True)
class Decoder:
    """Learned output queries that cross-attend the latents, then a linear layer.

    Args:
        num_queries, dim: the queries.
        out_dim: numbers an output holds.
        num_heads, qk_dim, v_dim: of the attention; None = the latents' width.
        query_residual: whether the queries are added to what they read.
        tied_to: the text whose embedding's values the linear layer has; None = values of its own.
    """

    num_queries: int
    dim: int
    out_dim: int
    num_heads: int = 1
    qk_dim: int | None = None
    v_dim: int | None = None
    query_residual: bool = True
    tied_to: str | None = None


@dataclass(frozen=True)
class Configuration:
    """One model and one batch.

    Args:
        title: for tables.
        inputs: modality → what it is; none: the latent layers alone, on given latents.
        batch: examples.
        num_latents, latent_dim: the latent array.
        num_blocks, num_layers: latent blocks (which share weights), and layers a block.
        num_heads, qk_dim, v_dim, widening: of the latent layers; None = `latent_dim`.
        cross_heads, cross_qk_dim, cross_v_dim, cross_widening: of the cross-attend; None = the
            tokens' width.
        decoder: None: the latents are the output.
        min_padding: learned channels behind every token, where there are several modalities.
        tokens_given: peers get the tokens ready-made, joined with their position codes.
    """

    title: str
    inputs: Mapping[str, Grid | Text]
    batch: int
    num_latents: int
    latent_dim: int
    num_blocks: int = 1
    num_layers: int = 6
    num_heads: int = 8
    qk_dim: int | None = None
    v_dim: int | None = None
    widening: int = 1
    cross_heads: int = 1
    cross_qk_dim: int | None = None
    cross_v_dim: int | None = None
    cross_widening: int = 1
    decoder: Decoder | None = None
    min_padding: int = 0
    tokens_given: bool = False

    @property
    def num_tokens(self) -> int:
        """M: tokens that an example has, padding included."""
        return sum(source.num_tokens for source in self.inputs.values())

    @property
    def token_dim(self) -> int:
        """C: width of a token."""
        return max((source.width for source in self.inputs.values()), default=0) + self.min_padding

    @property
    def latent_widths(self) -> tuple[int, int]:
        """Widths of query-key and value over all heads in the latent layers."""
        return self.qk_dim or self.latent_dim, self.v_dim or self.latent_dim

    @property
    def cross_widths(self) -> tuple[int, int]:
        """The same in the cross-attend."""
        return self.cross_qk_dim or self.token_dim, self.cross_v_dim or self.token_dim

    @property
    def decoder_widths(self) -> tuple[int, int]:
        """The same in the decoder."""
        assert self.decoder is not None
        return self.decoder.qk_dim or self.latent_dim, self.decoder.v_dim or self.latent_dim

    def flops(self, step: str) -> float:
        """Operations of a "forward" or "train" step by the dense definition, 2 a multiply-add.

        Attention and linear layers only: what a matrix unit can do.
        """
        return self.batch * (self._read_flops() + self._latent_flops()) * _times(step)

    def irreducible_flops(self, step: str) -> float:
        """The part of `flops` that no exact rewriting of the cross-attend takes away."""
        n, d, (qk, v) = self.num_latents, self.latent_dim, self.cross_widths
        own = 2 * n * d * (qk + v) + 4 * self.cross_widening * n * d**2 if self.inputs else 0
        return self.batch * (own + self._latent_flops()) * _times(step)

    def _read_flops(self) -> float:
        if not self.inputs:
            return 0
        return block_flops(
            self.num_latents,
            self.num_tokens,
            self.latent_dim,
            self.token_dim,
            *self.cross_widths,
            widening=self.cross_widening,
        )

    def _latent_flops(self) -> float:
        n, d = self.num_latents, self.latent_dim
        layer = block_flops(n, n, d, d, *self.latent_widths, widening=self.widening)
        total = self.num_blocks * self.num_layers * layer
        if self.decoder is not None:
            o, e = self.decoder.num_queries, self.decoder.dim
            total += block_flops(o, n, e, d, *self.decoder_widths, widening=1)
            total += 2 * o * e * self.decoder.out_dim
        return total

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Configuration:
        inputs = {name: _source(source) for name, source in fields["inputs"].items()}
        decoder = Decoder(**fields["decoder"]) if fields["decoder"] else None
        return cls(**{**fields, "inputs": inputs, "decoder": decoder})


def _source(fields: Mapping[str, Any]) -> Grid | Text:
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return Grid(**fields) if "shape" in fields else Text(**fields)


def _times(step: str) -> int:
    return {"forward": 1, "train": TRAINING}[step]


def block_flops(
    queries: int, keys: int, query_dim: int, key_dim: int, qk: int, v: int, *, widening: int
) -> float:
    """Operations of one attention block with its MLP, for one example.

    The projections of queries, keys, values and output, the two products with the scores, the MLP.
    """
    projections = queries * query_dim * (qk + v) + keys * key_dim * (qk + v)
    return 2 * (projections + queries * keys * (qk + v) + 2 * widening * queries * query_dim**2)


def image(title: str, side: int, **sizes: Any) -> Configuration:
    """A square picture, one token a pixel: 3 channels and 258 of Fourier codes."""
    return Configuration(title, {"image": Grid((side, side), 3, 64)}, **sizes)


PAPER = {"batch": 1, "num_latents": 512, "latent_dim": 1024}
CLASSES = Decoder(1, 1024, 1000)

CONFIGURATIONS: dict[str, Configuration] = {
    "cross_261": image(
        "the paper's first cross-attend, qk = v = 261",
        224,
        **PAPER,
        num_layers=0,
        tokens_given=True,
    ),
    "cross_1024": image(
        "the paper's first cross-attend, qk = v = 1,024",
        224,
        **PAPER,
        num_layers=0,
        cross_qk_dim=1024,
        cross_v_dim=1024,
        tokens_given=True,
    ),
    "imagenet_8x6": image(
        "ImageNet Perceiver IO, 8 × 6 layers", 224, **PAPER, num_blocks=8, decoder=CLASSES
    ),
    "imagenet_1x6": image("ImageNet Perceiver IO, 1 × 6 layers", 224, **PAPER, decoder=CLASSES),
    "small_image": image(
        "small image",
        32,
        batch=16,
        num_latents=128,
        latent_dim=256,
        widening=4,
        cross_widening=4,
        decoder=Decoder(1, 256, 10),
    ),
    "bytes": Configuration(
        "text bytes, masked language model",
        {"text": Text(2048, 768)},
        batch=2,
        num_latents=256,
        latent_dim=1280,
        qk_dim=256,
        v_dim=1280,
        cross_heads=8,
        cross_qk_dim=256,
        cross_v_dim=1280,
        decoder=Decoder(
            2048,
            768,
            262,
            num_heads=8,
            qk_dim=256,
            v_dim=768,
            query_residual=False,
            tied_to="text",
        ),
    ),
    "audio": Configuration(
        "raw audio, one token a sample",
        {"audio": Grid((48_000,), 1, 64)},
        batch=1,
        num_latents=256,
        latent_dim=512,
        decoder=Decoder(1, 512, 35),
    ),
    "modalities": Configuration(
        "image, audio and text, ragged",
        {
            "audio": Grid((1000,), 16, 64, kept=(1.0, 0.25, 0.5, 0.75)),
            "image": Grid((64, 64), 3, 32),
            "text": Text(512, 64, kept=(0.25, 1.0, 0.125, 0.5)),
        },
        batch=4,
        num_latents=128,
        latent_dim=512,
        decoder=Decoder(1, 512, 10),
        min_padding=4,
        tokens_given=True,
    ),
    "latents": Configuration("the latent layers alone", {}, **PAPER),
}


def tiny(configuration: Configuration) -> Configuration:
    """The same kind of model at sizes that take no time, for a smoke test."""

    def shrink(source: Grid | Text) -> Grid | Text:
        if isinstance(source, Text):
            return replace(source, length=12, width=16)
        sides = (5, 7) if len(source.shape) == 2 else (20,)
        return replace(source, shape=sides, num_bands=2)

    decoder = configuration.decoder
    if decoder is not None:
        narrow = {"qk_dim": decoder.qk_dim and 8, "v_dim": decoder.v_dim and 16}
        queries = 12 if decoder.num_queries > 1 else 1
        decoder = replace(decoder, num_queries=queries, dim=16, num_heads=1, **narrow)
    return replace(
        configuration,
        inputs={name: shrink(source) for name, source in configuration.inputs.items()},
        num_latents=6,
        latent_dim=16,
        num_blocks=min(2, configuration.num_blocks),
        num_layers=min(1, configuration.num_layers),
        num_heads=2,
        qk_dim=configuration.qk_dim and 8,
        v_dim=configuration.v_dim and 16,
        cross_heads=min(2, configuration.cross_heads),
        cross_qk_dim=configuration.cross_qk_dim and 8,
        cross_v_dim=configuration.cross_v_dim and 16,
        decoder=decoder,
    )
