"""Tokens of single examples as a batch on a grid, and the learning rates of layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from perceiver.positions import Positions
from perceiver.types import Segment


def stacked(tokens: Sequence[Tensor], rows: Sequence[int], size: int) -> tuple[Tensor, Tensor]:
    """A batch (b, n, c) of tokens, zeros where there are none, and (b, n), where there are some.

    Args:
        tokens: (n, c) of some examples.
        rows: which of the batch they are.
        size: of the batch.
    """
    content = pad_sequence(list(tokens), batch_first=True)
    if len(rows) < size:
        index = torch.tensor(rows, device=content.device)
        whole = content.new_zeros(size, *content.shape[1:])
        content = whole.index_copy(0, index, content)
    lengths = torch.zeros(size, dtype=torch.long)
    lengths[list(rows)] = torch.tensor([len(each) for each in tokens])
    return content, torch.arange(content.shape[1]) < lengths[:, None]


def no_tokens(encoder: nn.Module, shape: tuple[int, int, int]) -> Tensor:
    """Zeros (b, n, c) of an encoder that nothing was read by.

    They hang on all of its parameters that learn: several processes wait for all gradients.
    """
    content = next(encoder.parameters()).new_zeros(shape)
    for parameter in encoder.parameters():
        if parameter.requires_grad:
            content = content + 0.0 * parameter.sum()
    return content


def placed(
    content: Tensor,
    mask: Tensor | None,
    shape: tuple[int, ...],
    *,
    prefix: int,
    position: Positions | None,
) -> Segment:
    """Tokens with the codes of a grid; those of the prefix, which is on none, are zeros."""
    length = content.shape[1]
    if position is None:
        return Segment(content=content, mask=mask, shape=(length,))
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
