"""Recompute norms and activations in the backward pass instead of storing them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceiver.ops.init import is_hooked

# Tensors of up to so many numbers are stored: recomputing them would save a few MiB per layer and
# take 0 to 7 % of a step (four models; `recompute=always` of benchmarks.ablations).
WORTHWHILE = 1 << 19


@dataclass
class _Result:
    """A result that can be computed again, once for all operations that need it.

    Args:
        function, argument: what it is the result of.
        version: of the argument when it was computed.
        readers: operations whose backward passes need it.
        waiting: those of them that have not had it yet.
        value: the result, between the first and the last of them.
    """

    function: Callable[[Tensor], Tensor]
    argument: Tensor
    version: int
    readers: int = 0
    waiting: int = 0
    value: Tensor | None = None

    def read(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        value = self.value
        if value is None:
            argument = _unchanged(self.argument, self.version)
            with torch.no_grad():
                value = self.value = self.function(argument)
            self.waiting = self.readers
        self.waiting -= 1
        if self.waiting == 0:
            self.value = None
        return value.to(dtype).view(shape)


def _unchanged(tensor: Tensor, version: int) -> Tensor:
    """The tensor, if nothing was written to it; torch does not check what hooks have stored."""
    if tensor._version != version:
        raise RuntimeError(
            "a tensor that attention was computed from was changed in place, and gradients need "
            "its numbers of then: write y = y + x for y += x"
        )
    return tensor


class _State(threading.local):
    """Per thread: the results inside `recompute` so far; None outside."""

    results: list[tuple[Tensor, _Result]] | None = None


_state = _State()


def _bound(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor] | None:
    """The function with its parameters of now, since those of a module may be swapped later.

    None for a module with parameters or hooks that is not a plain LayerNorm.
    """
    if not isinstance(function, nn.Module):
        return function
    if is_hooked(function):
        return None
    if not any(True for _ in function.parameters()):
        return function
    if type(function) is not nn.LayerNorm:
        return None
    return partial(
        F.layer_norm,
        normalized_shape=function.normalized_shape,
        weight=function.weight,
        bias=function.bias,
        eps=function.eps,
    )


def recomputable(function: Callable[[Tensor], Tensor], argument: Tensor) -> Tensor:
    """function(argument), which operations inside `recompute` do not store for their gradients.

    Args:
        function: elementwise or a norm: quick beside the matrix products around it, without
            randomness, and with a gradient that needs the argument rather than the result.
        argument: what is stored in any case.
    """
    result = function(argument)
    if _state.results is not None and (again := _bound(function)) is not None:
        argument = argument.detach()
        _state.results.append((result, _Result(again, argument, argument._version)))
    return result


def _pack(saved: Tensor) -> Callable[[], Tensor]:
    """How the backward pass gets at a tensor that an operation saves."""
    for tensor, result in _state.results or ():
        same = saved.data_ptr() == tensor.data_ptr() and saved.dtype == tensor.dtype
        if same and saved.numel() == tensor.numel() and saved.is_contiguous():
            result.readers += 1
            return partial(result.read, saved.shape, saved.dtype)
    return partial(_unchanged, saved, saved._version)


def _unpack(read: Callable[[], Tensor]) -> Tensor:
    return read()


def is_worthwhile(like: Tensor) -> bool:
    """Whether to `recompute` where tensors have this size."""
    return (
        torch.is_grad_enabled()
        and not torch.compiler.is_compiling()  # a compiler decides for itself what to store
        and like.numel() > WORTHWHILE
        and not saves_elsewhere()
    )


def saves_elsewhere() -> bool:
    """Whether other hooks store what backward passes need: checkpoints, a copy on the CPU.

    Functions of torch.func know no such hooks.
    """
    if torch.compiler.is_compiling():
        return False
    has_hooks = torch._C._autograd._top_saved_tensors_default_hooks(False) is not None
    return (has_hooks and _state.results is None) or torch._C._are_functorch_transforms_active()


@contextmanager
def recompute() -> Iterator[None]:
    """Where results of `recomputable` are computed again in the backward pass, not stored.

    A linear layer stores its input for the gradient of its weight: here a norm of the residual
    stream, or an activation, each as large as what it was computed from, which is stored as well.
    Gradients of gradients do not go through what was recomputed.
    """
    # The results live until the end of this block, so that nothing else takes their memory.
    outer, _state.results = _state.results, []
    try:
        with torch.autograd.graph.saved_tensors_hooks(_pack, _unpack):
            yield
    finally:
        _state.results = outer
