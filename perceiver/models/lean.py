"""Training that keeps no results of norms and activations: they are computed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

# Numbers of a tensor from which keeping it costs more than computing it again.
WORTHWHILE = 1 << 17


@dataclass(frozen=True)
class _Recipe:
    """How to compute a tensor that was not kept."""

    function: Callable[[Tensor], Tensor]
    argument: Tensor
    shape: torch.Size
    dtype: torch.dtype

    def follow(self) -> Tensor:
        with torch.no_grad():
            return self.function(self.argument).to(self.dtype).view(self.shape)


_cheap: list[tuple[Tensor, Callable[[Tensor], Tensor], Tensor]] | None = None


def cheap(function: Callable[[Tensor], Tensor], argument: Tensor) -> Tensor:
    """function(argument), which backward passes of operations inside `lean` do not keep.

    Args:
        function: elementwise or a norm: cheap beside the matrix products around it, without
            randomness, and with a gradient that needs the argument rather than the result.
        argument: what is kept in any case.
    """
    result = function(argument)
    if _cheap is not None:
        _cheap.append((result, function, argument.detach()))
    return result


def _pack(saved: Tensor) -> Tensor | _Recipe:
    for result, function, argument in _cheap or ():
        same = saved.data_ptr() == result.data_ptr() and saved.dtype == result.dtype
        if same and saved.numel() == result.numel() and saved.is_contiguous():
            return _Recipe(function, argument, saved.shape, saved.dtype)
    return saved


def _unpack(kept: Tensor | _Recipe) -> Tensor:
    return kept.follow() if isinstance(kept, _Recipe) else kept


def pays(like: Tensor) -> bool:
    """Whether `lean` is worth its while for operations on tensors of this size."""
    return (
        torch.is_grad_enabled()
        and not torch.compiler.is_compiling()  # a compiler decides for itself what to keep
        and like.numel() >= WORTHWHILE
    )


@contextmanager
def lean() -> Iterator[None]:
    """Where results of `cheap` are computed again in the backward pass rather than kept.

    A linear layer keeps its input for the gradient of its weight: here a norm of the residual
    stream, or an activation, each as large as what it was computed from, which is kept as well. A
    backward pass through a backward pass does not go through what was computed again.
    """
    global _cheap
    # The results live until the end of this block, so that nothing else takes their memory.
    outer, _cheap = _cheap, []
    try:
        with torch.autograd.graph.saved_tensors_hooks(_pack, _unpack):
            yield
    finally:
        _cheap = outer
