"""Keep masks: boolean, True = may be attended to."""

from __future__ import annotations

import torch
from torch import Tensor

from perceiver.attention.context import Context
from perceiver.attention.patterns import Full, Pattern, Sizes
from perceiver.shapes import Bool, Float


def split_mask(
    mask: Tensor | Pattern | None, sizes: Sizes, device: torch.device
) -> tuple[Pattern | None, Bool[Tensor, "#b #h #q #k"] | None]:
    """A caller's mask as a pattern or as a tensor, whichever it is.

    A pattern that is the same for all queries becomes a tensor over keys, which every kernel takes.

    Raises:
        TypeError: for anything but a boolean tensor or a pattern.
        ValueError: for other sizes.
    """
    if isinstance(mask, Pattern):
        mask.check(sizes.queries, sizes.keys, sizes.batch, sizes.heads)
        over_keys = mask.over_keys(sizes.keys, device)
        if over_keys is None:
            return mask, None
        mask = over_keys
    if mask is None:
        return None, None
    batch, heads, queries, keys = sizes
    return None, broadcast_mask(mask, batch=batch, heads=heads, queries=queries, keys=keys)


def broadcast_mask(
    mask: Tensor, *, batch: int, heads: int, queries: int, keys: int
) -> Bool[Tensor, "#b #h #q #k"]:
    """A keep mask of 2, 3 or 4 dimensions as one that broadcasts to (b, h, q, k).

    Args:
        mask: bool (b, k) over keys, (b, q, k) over pairs or (b, h, q, k); any but the keys'
            dimension may be 1. torch's mask (q, k) over pairs is mask[None] here.
        batch: b.
        heads: h.
        queries: q.
        keys: k.

    Raises:
        TypeError: for anything but a boolean tensor.
        ValueError: for a mask of other dimensions or sizes.
    """
    if not isinstance(mask, Tensor) or mask.dtype is not torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
        raise TypeError(
            f"mask is {kind}; give a boolean tensor with True = may attend "
            "(a mask of another library may mean the opposite)"
        )
    views = {2: (slice(None), None, None), 3: (slice(None), None), 4: (slice(None),)}
    if mask.dim() not in views:
        raise ValueError(f"mask has shape {tuple(mask.shape)}; expected (b, k), (b, q, k) or 4-D")
    hint = "; a mask (q, k) over pairs, as torch has it, is mask[None] here"
    wide = mask[views[mask.dim()]]
    expected = (batch, heads, queries, keys)
    if any(size not in (1, want) for size, want in zip(wide.shape, expected, strict=True)):
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, which does not fit batch={batch}, "
            f"heads={heads}, queries={queries}, keys={keys}"
            + (hint if tuple(mask.shape) == (queries, keys) else "")
        )
    return wide.expand(-1, -1, -1, keys)


def broadcast_bias(bias: Tensor, sizes: Sizes) -> Float[Tensor, "#b #h #q #k"]:
    """A bias on the scores, of up to 4 dimensions, as one that broadcasts to (b, h, q, k).

    Raises:
        TypeError: for anything but a tensor of real numbers.
        ValueError: for a bias that does not broadcast so.
    """
    if not isinstance(bias, Tensor) or not bias.is_floating_point():
        kind = bias.dtype if isinstance(bias, Tensor) else f"a {type(bias).__name__}"
        raise TypeError(
            f"bias is {kind}; give a tensor of real numbers that are added to the scores "
            "(which keys a query may attend to is mask=)"
        )
    wide = bias[(None,) * (4 - bias.dim())]
    fits = zip(wide.shape, sizes, strict=False)
    if wide.dim() > 4 or any(size not in (1, want) for size, want in fits):
        raise ValueError(
            f"bias has shape {tuple(bias.shape)}, which does not broadcast to "
            f"(batch, heads, queries, keys) = {tuple(sizes)}"
        )
    return wide


def with_extra_keys(
    keep: Tensor | None,
    pattern: Pattern,
    sizes: Sizes,
    registers: int,
    device: torch.device,
) -> Bool[Tensor, "#b #h q k2"]:
    """The mask of a context with keys behind it: registers, or those that a pattern pads with.

    A query that may attend to nothing in the context attends to nothing at all.

    Args:
        keep: (#b, #h, #q, k) over the context, or None.
        pattern: says which keys of the context, and of its own padding, a query may attend to.
        sizes: of the scores without such keys.
        registers: keys that any query may attend to.
        device: where the mask lives.
    """
    batch, heads, queries, keys = sizes
    kept = pattern.dense(queries, keys, batch=batch, heads=heads, device=device)
    real, padding = kept[..., :keys], kept[..., keys:]
    if keep is not None:
        real = real & keep
    seeing = real.any(-1, keepdim=True)
    padding, free = padding & seeing, seeing.expand(-1, -1, -1, registers)
    return torch.cat([real, free, padding.expand(*real.shape[:3], -1)], -1)


def forbid_masked_nan(
    out: Tensor, context: Tensor | Context, keep: Tensor | None, pattern: Pattern | None = None
) -> None:
    """Explains a result that is not finite if masked elements of the context are to blame.

    Looks at a CPU's results only: elsewhere, looking would make the processor wait.

    Args:
        out: (b, q, e) the result.
        context: what was attended to.
        keep: the mask (#b, #h, #q, k) over the context, or None.
        pattern: says what is left out where there is no mask; None = nothing.

    Raises:
        ValueError: for NaN or infinity in elements that no query may attend to.
    """
    is_traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    is_all = keep is None and (pattern is None or isinstance(pattern, Full))
    if is_all or out.device.type != "cpu" or is_traced or bool(out.isfinite().all()):
        return
    context = context.tokens() if isinstance(context, Context) else context
    if keep is None:
        assert pattern is not None
        keys = context.shape[1]
        keep = pattern.dense(out.shape[1], keys, batch=out.shape[0])[..., :keys]
    masked = ~keep.flatten(1, 2).any(1).expand(len(context), -1)
    if not bool(context[masked].isfinite().all()):
        raise ValueError(
            "context holds NaN or infinite numbers in masked elements, and 0 · NaN is NaN in every "
            "kernel: fill what is masked with zeros, as the collator does"
        )
