"""Tokens of single examples as a batch on a grid, and the learning rates of layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from perceiver.positions import Positions
from perceiver.types import Segment


def stacked(
    tokens: Sequence[Tensor],
    rows: Sequence[int],
    shape: tuple[int, int, int],
    *,
    encoder: nn.Module,
) -> tuple[Tensor, Tensor]:
    """A batch (b, n, c) of tokens, zeros where there are none, and (b, n), where there are some.

    Args:
        tokens: (n, c) of some examples.
        rows: which of the batch they are.
        shape: of the batch, where it has no tokens at all.
        encoder: its zeros then hang on all parameters that learn: several processes wait for all
            gradients.
    """
    if not tokens:
        content = next(encoder.parameters()).new_zeros(shape)
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                content = content + 0.0 * parameter.sum()
        return content, torch.zeros(shape[:2], dtype=torch.bool)
    content = pad_sequence(list(tokens), batch_first=True)
    if len(rows) < shape[0]:
        index = torch.tensor(rows, device=content.device)
        whole = content.new_zeros(shape[0], *content.shape[1:])
        content = whole.index_copy(0, index, content)
    lengths = torch.zeros(shape[0], dtype=torch.long)
    lengths[list(rows)] = torch.tensor([len(each) for each in tokens])
    return content, torch.arange(content.shape[1]) < lengths[:, None]


def placed(
    content: Tensor,
    mask: Tensor | None,
    grid: tuple[int, ...] | None,
    *,
    prefix: int,
    position: Positions | None,
) -> Segment:
    """Tokens with the codes of a grid; those of the prefix, which is on none, are zeros.

    Args:
        content: (b, n, c).
        mask: (b, n), True on tokens.
        grid: of every example; None = as many places in a row as there are tokens.
        prefix: tokens before the grid.
        position: makes the codes; None = none.

    Raises:
        ValueError: for positions that depend on the length of a batch with several lengths.
    """
    length = content.shape[1]
    if position is None:
        return Segment(content=content, mask=mask, shape=(length,))
    if mask is not None and grid is None and position.is_relative:
        raise ValueError(
            "inputs of several lengths were padded to one, but the positions are relative to the "
            "whole input: set position.absolute=true in the adapter"
        )
    shape = (length - prefix,) if grid is None else grid
    axes = position(shape)
    if not prefix and not position.add:
        return Segment(content=content, axes=axes, mask=mask, shape=shape)
    codes = Segment(content[:1, prefix:, :0], axes, shape=shape).dense()[0]
    codes = torch.cat([codes.new_zeros(prefix, codes.shape[1]), codes])
    if position.add:
        return Segment(content=content + codes, mask=mask, shape=(length,))
    return Segment(content=content, axes=(codes,), mask=mask, shape=(length,))


def layer_rates(encoder: nn.Module, *, scale: float, decay: float) -> dict[str, float]:
    """Parameter → `scale`, times `decay` for each layer that is above it.

    A layer is an item of the longest list of modules. What is registered before the list counts as
    below its first, what comes behind as part of its last.
    """
    lists = [m for m in encoder.modules() if isinstance(m, nn.ModuleList | nn.Sequential)]
    layers = max(lists, key=len, default=nn.ModuleList())
    numbers = {id(p): n for n, layer in enumerate(layers) for p in layer.parameters()}
    rates, is_behind = {}, not numbers
    for name, parameter in encoder.named_parameters():
        is_behind = is_behind or id(parameter) in numbers
        number = numbers.get(id(parameter), len(layers) - 1 if is_behind else -1)
        rates[name] = scale * decay ** (len(layers) - 1 - number if numbers else 0)
    return rates
