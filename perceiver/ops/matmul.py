"""Matrix products: precision, and oneDNN or MKL, whichever is faster on this CPU."""

from __future__ import annotations

import math
import platform
import re
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import SymInt, Tensor, nn
from torch.autograd import forward_ad
from torch.utils.flop_counter import register_flop_formula

from perceiver.shapes import Float

# Multiplications from which oneDNN's longer way to a product does not count, and the least of the
# three sizes: below it a product is as slow as memory.
LEAST_WORK, LEAST_SIDE = 1 << 22, 4
ZEN_5 = 26  # its family, and the first of that kind


def _processor() -> str:
    """A text with the processor's vendor and family; what stands around them differs."""
    try:
        return Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:  # not Linux
        return platform.processor()


def amd_family() -> int | None:
    """The family of an AMD processor, 25 up to Zen 4 and 26 for Zen 5; None for others."""
    told = _processor()
    family = re.search(r"family\W+(\d+)", told, re.IGNORECASE)
    return int(family[1]) if family and "AuthenticAMD" in told else None


def _mkl_is_slow() -> bool:
    """Whether MKL, which torch multiplies float32 with, leaves half of the processor unused.

    On other vendors' processors it keeps to instructions of 256 bits. oneDNN, which torch has for
    half precision, knows those of 512 bits as well: on AMD's Zen 5, which is the first to do them
    at once, it takes half the time.
    """
    return (
        torch.backends.cpu.get_cpu_capability() == "AVX512"
        and (amd_family() or 0) >= ZEN_5
        and torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
    )


MKL_IS_SLOW = _mkl_is_slow()
# Whether half precision is multiplied in tiles (AMX): several times as fast as float32, where
# vectors of it are twice as fast at best.
HAS_TILES = "amx_bf16" in _processor()


class _Rounding:
    """torch's option of whether oneDNN may round float32, which is one for all threads."""

    option: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, "none"

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Where it may: torch then has oneDNN multiply all matrices, in the whole process.

        The option goes back to what it was when the last thread has left; one that was none of the
        user's is none again.
        """
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                chosen = self.option.fp32_precision
                self.option.fp32_precision = "none"  # what is chosen for all then shows
                self._before = "none" if self.option.fp32_precision == chosen else chosen
                self.option.fp32_precision = "bf16"
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self.option.fp32_precision = self._before


rounding_allowed = _Rounding().allowed


def _never_rounds() -> bool:
    """Whether oneDNN multiplies float32 as it is even where it may round: without tiles it does."""
    if HAS_TILES or not torch.backends.mkldnn.is_available():
        return False
    plain: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
    x = torch.full((64, 64), 1 + 2**-12, **plain)  # 1 in bfloat16
    with rounding_allowed():
        return bool((x @ torch.eye(64, **plain) == x).all())


NEVER_ROUNDS = _never_rounds()


def onednn_is_faster(m: int | SymInt, n: int | SymInt, k: int | SymInt) -> bool:
    """Whether oneDNN is the quicker one for (m, k) times (k, n) in float32 on this CPU."""
    return bool(
        MKL_IS_SLOW
        and m * n * k >= LEAST_WORK
        and min(m, n, k) >= LEAST_SIDE
        and torch.backends.mkldnn.enabled
    )


def onednn_multiplies_batches() -> bool:
    """Whether `products` of many matrices are oneDNN's as well."""
    return bool(MKL_IS_SLOW and NEVER_ROUNDS and torch.backends.mkldnn.enabled)


def own_operators_serve() -> bool:
    """Whether operators of our own can run here.

    Exported and traced programs should do without this package; torch.func and forward-mode
    differentiation ask for rules that our operators lack.
    """
    is_recorded = torch.compiler.is_exporting() or torch.jit.is_tracing()
    return not (is_recorded or differs_by_function())


def differs_by_function() -> bool:
    """Whether torch.func or forward-mode differentiation is at work."""
    # Dynamo cannot read the level, and has no forward mode of its own.
    return torch._C._are_functorch_transforms_active() or (
        not torch.compiler.is_dynamo_compiling() and forward_ad._current_level >= 0
    )


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Disable autocast (nothing to disable on the meta device)."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def rounds_float32() -> bool:
    """Whether the user lets float32 products of a GPU be rounded (TF32), by whichever option."""
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # set by the newer options alone
        return torch.backends.cuda.matmul.fp32_precision == "tf32"


def linear(
    x: Float[Tensor, "*b k"], weight: Float[Tensor, "n k"], bias: Float[Tensor, " n"] | None
) -> Float[Tensor, "*b n"]:
    """x Wᵀ + b, as `torch.nn.functional.linear`, by oneDNN where that is faster."""
    is_plain = (
        MKL_IS_SLOW
        and not torch.is_autocast_enabled("cpu")
        and type(x) is Tensor
        and type(weight) in (Tensor, nn.Parameter)
    )
    return _linear(x, weight, bias) if is_plain else F.linear(x, weight, bias)


def products(
    left: Float[Tensor, "b m k"],
    right: Float[Tensor, "b k n"],
    *,
    scale: float = 1.0,
    out: Float[Tensor, "b m n"] | None = None,
    is_added: bool = False,
) -> Float[Tensor, "b m n"]:
    """scale · left · right of plain tensors, by oneDNN where that is faster.

    Args:
        left, right: the matrices.
        scale: factor on their product.
        out: memory for the result.
        is_added: to what is in `out`.
    """
    (b, m, k), n = left.shape, right.shape[2]
    into = left.new_empty(()) if out is None else out
    how: dict[str, Any] = {"beta": int(is_added), "alpha": scale}
    is_faster = (
        onednn_multiplies_batches() and onednn_is_faster(b * m, n, k) and _has(left) and _has(right)
    )
    with rounding_allowed() if is_faster else nullcontext():
        if b > 1:
            return torch.baddbmm(into, left, right, out=out, **how)
        # One that lies transposed would be copied as if it were one of several.
        room = None if out is None else out[0]
        return torch.addmm(into.squeeze(0), left[0], right[0], out=room, **how)[None]


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    is_faster = (
        own_operators_serve()
        and onednn_is_faster(x.numel() // max(1, x.shape[-1]), *weight.shape)
        and x.shape[-1] == weight.shape[-1]
        and all(operand is None or _has(operand) for operand in (x, weight, bias))
    )
    return _onednn(x, weight, bias) if is_faster else F.linear(x, weight, bias)


def _has(x: Tensor) -> bool:
    """Whether oneDNN takes a tensor where MKL would."""
    return x.device.type == "cpu" and x.dtype == torch.float32


@torch.library.custom_op(
    "perceiver::linear",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor x, Tensor weight, Tensor? bias) -> Tensor",
)
def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not x.is_contiguous() and onednn_multiplies_batches():  # below it would be copied
        with rounding_allowed():
            return F.linear(x, weight, bias)
    # Weights that are not dense would go oneDNN's slowest way.
    is_across = weight.stride(-1) != 1
    weight = weight.mT.contiguous().mT if is_across else weight.contiguous()
    bias = None if bias is None else bias.contiguous()  # its strides are not looked at
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@_onednn.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def _setup(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, weight, _ = inputs
    wants_x, wants_weight = ctx.needs_input_grad[:2]
    ctx.save_for_backward(x if wants_weight else None, weight if wants_x else None)


def _backward(ctx, grad):  # type: ignore[no-untyped-def]
    x, weight = ctx.saved_tensors
    wants_x, wants_weight, wants_bias = ctx.needs_input_grad
    grads = grad.reshape(-1, grad.shape[-1])
    return (
        _linear(grad, weight.mT, None) if wants_x else None,
        _linear(grads.mT, x.reshape(-1, x.shape[-1]).mT, None) if wants_weight else None,
        grads.sum(0) if wants_bias else None,
    )


_onednn.register_autograd(_backward, setup_context=_setup)


@register_flop_formula(torch.ops.perceiver.linear)
def _flops(x: torch.Size, weight: torch.Size, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * math.prod(x) * weight[0]
