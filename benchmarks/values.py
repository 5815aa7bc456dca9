"""The same numbers for every contestant: raw inputs, position codes, joined tokens, parameters."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from benchmarks.configurations import Configuration, Grid, Text


def random(name: str, *shape: int) -> Tensor:
    """Standard normal numbers that depend on the name and the shape alone."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(shape, generator=generator)


def raw_inputs(configuration: Configuration) -> dict[str, Tensor]:
    """Modality → (b, *shape, channels) numbers, or (b, length) ids."""
    values: dict[str, Tensor] = {}
    for name, source in configuration.inputs.items():
        if isinstance(source, Grid):
            values[name] = random(name, configuration.batch, *source.shape, source.channels)
        else:
            noise = random(name, configuration.batch, source.length).sigmoid()
            values[name] = (noise * source.vocab_size).long().clamp(max=source.vocab_size - 1)
    return values


def raw_masks(configuration: Configuration) -> dict[str, Tensor]:
    """Modality → (b, m) bool, True on real tokens, for the modalities of several lengths."""
    masks = {}
    for name, source in configuration.inputs.items():
        if source.kept:
            m = source.num_tokens
            lengths = torch.tensor([round(m * part) for part in source.kept])
            masks[name] = torch.arange(m) < lengths[:, None]
    return masks


def fourier_codes(source: Grid) -> Tensor:
    """(m, code): for every axis its coordinate, sines and cosines, axis after axis."""
    codes = []
    for axis, length in enumerate(source.shape):
        place = torch.linspace(-1, 1, length, dtype=torch.float64)
        bands = torch.linspace(1, length / 2, source.num_bands, dtype=torch.float64)
        angles = math.pi * place[:, None] * bands
        code = torch.cat([place[:, None], angles.sin(), angles.cos()], 1).float()
        view = [1] * len(source.shape) + [-1]
        view[axis] = length
        codes.append(code.view(view).expand(*source.shape, -1).flatten(0, -2))
    return torch.cat(codes, 1)


def grouped_channels(source: Grid) -> Tensor:
    """Index of our channels in the order of libraries that put all sines before all cosines."""
    k, axes, c = source.num_bands, len(source.shape), source.channels
    start = [c + axis * (2 * k + 1) for axis in range(axes)]
    order = [*range(c), *start]
    for part in (0, 1):
        for first in start:
            order += range(first + 1 + part * k, first + 1 + (part + 1) * k)
    return torch.tensor(order)


def joined_tokens(configuration: Configuration) -> tuple[Tensor, Tensor | None]:
    """(b, m, c) tokens with their position codes, and their mask: what ready-made tokens are."""
    raw, masks = raw_inputs(configuration), raw_masks(configuration)
    tokens, keep = [], []
    for name, source in sorted(configuration.inputs.items()):
        if isinstance(source, Grid):
            content = raw[name].flatten(1, -2)
            codes = fourier_codes(source).expand(configuration.batch, -1, -1)
            parts = [content, codes]
        else:
            parts = [embedded(name, source, raw[name])]
        padding = configuration.token_dim - source.width
        if padding:
            constant = initial(f"padding.{name}", padding)
            parts.append(constant.expand(configuration.batch, source.num_tokens, -1))
        tokens.append(torch.cat(parts, -1))
        everything = torch.ones(configuration.batch, source.num_tokens, dtype=torch.bool)
        keep.append(masks.get(name, everything))
    return torch.cat(tokens, 1), torch.cat(keep, 1) if masks else None


def embedded(name: str, source: Text, ids: Tensor) -> Tensor:
    table = initial(f"{name}.embedding", source.vocab_size, source.width)
    return table[ids] + initial(f"{name}.positions", source.length, source.width)


def initial(role: str, *shape: int) -> Tensor:
    """The values of the parameter that plays this role, whichever library holds it.

    Matrices have rows of about unit norm, gains stand around 1, the rest is small: as trained
    weights rather than as initial ones, so that a wrong wiring shows in the outputs.
    """
    noise = random(role, *shape)
    if len(shape) == 2 and role.endswith("weight"):
        return noise / math.sqrt(shape[1])
    return 1 + 0.1 * noise if "norm" in role and role.endswith("weight") else 0.2 * noise


def equalise(
    module: nn.Module,
    role_of: Callable[[str], str],
    channels: Mapping[str, Tensor] | None = None,
) -> None:
    """Give every parameter the values of its role.

    Args:
        module: whose parameters are set.
        role_of: from a parameter's name to its role.
        channels: role → order in which the library holds the last dimension's channels.
    """
    for name, parameter in module.named_parameters():
        role = role_of(name)
        values = initial(role, *parameter.shape)
        if channels and role in channels:
            values = values[..., channels[role]]
        with torch.no_grad():
            parameter.copy_(values)
