"""Training that keeps no results of norms and activations: they are computed again."""

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

# Numbers of a tensor up to which results are kept: there computing again saves a few MiB a layer
# and takes 0 to 7 % of a step (four models; `recompute=always` of benchmarks.ablations).
WORTHWHILE = 1 << 19


@dataclass
class _Result:
    """A result that can be computed again, for all operations that want it at the same time.

    Args:
        function, argument: what it is the result of.
        version: of the argument's numbers when it was computed.
        readers: operations whose backward passes want it.
        waiting: those of them that have not had it yet.
        value: the result, between the first and the last of them.
    """

    function: Callable[[Tensor], Tensor]
    argument: Tensor
    version: int
    readers: int = 0
    waiting: int = 0
    value: Tensor | None = None

    def give(self) -> Tensor:
        value = self.value
        if value is None:
            _check_unchanged(self.argument, self.version)
            with torch.no_grad():
                value = self.value = self.function(self.argument)
            self.waiting = self.readers
        self.waiting -= 1
        if self.waiting == 0:
            self.value = None
        return value


@dataclass(frozen=True)
class _Recipe:
    """How to come by a tensor that was not kept."""

    result: _Result
    shape: torch.Size
    dtype: torch.dtype

    def follow(self) -> Tensor:
        return self.result.give().to(self.dtype).view(self.shape)


@dataclass(frozen=True)
class _Kept:
    """A tensor that was kept, of which torch checks no versions where hooks keep it."""

    tensor: Tensor
    version: int

    def follow(self) -> Tensor:
        _check_unchanged(self.tensor, self.version)
        return self.tensor


def _check_unchanged(tensor: Tensor, version: int) -> None:
    if tensor._version != version:
        raise RuntimeError(
            "a tensor that attention was computed from was changed in place, and gradients need "
            "its numbers of then: write y = y + x for y += x"
        )


class _State(threading.local):
    """What a thread is in the middle of: its results of `cheap`, outside of `lean` None."""

    cheap: list[tuple[Tensor, _Result]] | None = None


_state = _State()


def _bound(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor] | None:
    """The function with the parameters that it has now, since a module's may be swapped later.

    None for a module that is more than a LayerNorm or a function without parameters.
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


def cheap(function: Callable[[Tensor], Tensor], argument: Tensor) -> Tensor:
    """function(argument), which backward passes of operations inside `lean` do not keep.

    Args:
        function: elementwise or a norm: cheap beside the matrix products around it, without
            randomness, and with a gradient that needs the argument rather than the result.
        argument: what is kept in any case.
    """
    result = function(argument)
    if _state.cheap is not None and (again := _bound(function)) is not None:
        argument = argument.detach()
        _state.cheap.append((result, _Result(again, argument, argument._version)))
    return result


def _pack(saved: Tensor) -> _Kept | _Recipe:
    for tensor, result in _state.cheap or ():
        same = saved.data_ptr() == tensor.data_ptr() and saved.dtype == tensor.dtype
        if same and saved.numel() == tensor.numel() and saved.is_contiguous():
            result.readers += 1
            return _Recipe(result, saved.shape, saved.dtype)
    return _Kept(saved, saved._version)


def _unpack(kept: _Kept | _Recipe) -> Tensor:
    return kept.follow()


def pays(like: Tensor) -> bool:
    """Whether `lean` is worth its while for operations on tensors of this size."""
    return (
        torch.is_grad_enabled()
        and not torch.compiler.is_compiling()  # a compiler decides for itself what to keep
        and like.numel() > WORTHWHILE
        and not saves_elsewhere()
    )


def saves_elsewhere() -> bool:
    """Whether what backward passes want is kept by other means: checkpoints, a copy on the CPU.

    Functions of torch.func know no such hooks.
    """
    if torch.compiler.is_compiling():
        return False
    has_hooks = torch._C._autograd._top_saved_tensors_default_hooks(False) is not None
    return (has_hooks and _state.cheap is None) or torch._C._are_functorch_transforms_active()


@contextmanager
def lean() -> Iterator[None]:
    """Where results of `cheap` are computed again in the backward pass rather than kept.

    A linear layer keeps its input for the gradient of its weight: here a norm of the residual
    stream, or an activation, each as large as what it was computed from, which is kept as well. A
    backward pass through a backward pass does not go through what was computed again.
    """
    # The results live until the end of this block, so that nothing else takes their memory.
    outer, _state.cheap = _state.cheap, []
    try:
        with torch.autograd.graph.saved_tensors_hooks(_pack, _unpack):
            yield
    finally:
        _state.cheap = outer
