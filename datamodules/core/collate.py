"""Examples → one `Batch`: ragged inputs padded and masked, absent modalities filled with zeros."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from datamodules.loading.seeding import torch_state_kept
from datamodules.loading.worker_transport import send_by_value
from datamodules.readers import Field
from perceiver.types import Batch

send_by_value(Batch)

_SHORT = 1024  # elements: to copy such rows one by one takes longer than to copy all at once


@dataclass
class Example:
    """One example, as a dataset yields it.

    Args:
        inputs: modality → tensor; None = the example lacks the modality.
        targets: name → class index, or a tensor of 0/1 labels or real values; None, or a name that
            other examples have = the example lacks it. A lone target is called "target".
        id: a name that leads a reader to the example (file, line), for error messages.
        seed: of what is drawn for the batch that it comes first in.
    """

    inputs: dict[str, Tensor | None]
    targets: dict[str, int | float | Tensor | None]
    id: str
    seed: int = 0


@dataclass
class Examples(Sequence[Example]):
    """The examples of a batch, column by column: what is done to all at once costs each little.

    Args:
        inputs: modality → n tensors; None = the example lacks the modality.
        targets: name → (n,) class indices, or (n, k) 0/1 labels or real values.
        ids: n names.
        seed: of what is drawn for the batch.
        known: name → (n,) bool, False where the example lacks the target; see `Batch`.
    """

    inputs: dict[str, list[Tensor | None]]
    targets: dict[str, Tensor]
    ids: list[str]
    seed: int = 0
    known: dict[str, Tensor] = dataclass_field(default_factory=dict)

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Examples:
        """Those of a list."""
        names = dict.fromkeys(name for example in examples for name in example.inputs)
        inputs = {name: [example.inputs.get(name) for example in examples] for name in names}
        ids, targets, known = [example.id for example in examples], {}, {}
        for name in dict.fromkeys(name for example in examples for name in example.targets):
            column = [example.targets.get(name) for example in examples]
            found = [None if value is None else torch.as_tensor(value) for value in column]
            if any(value is None for value in column):
                known[name] = torch.tensor([value is not None for value in column])
            if any(value is not None for value in column):
                targets[name] = _stacked(name, found, ids)
        return cls(inputs, targets, ids, examples[0].seed, known)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Example:
        inputs = {name: column[index] for name, column in self.inputs.items()}
        targets: dict[str, int | float | Tensor | None] = dict.fromkeys(self.known)
        for name, column in self.targets.items():
            if name not in self.known or self.known[name][index]:
                value = column[index]
                targets[name] = value if value.ndim else value.item()
        return Example(inputs, targets, self.ids[index], self.seed)


class Collator:
    """Callable for DataLoader: examples → `Batch`.

    Every modality of `fields` is in `inputs` whatever the examples hold. A modality has a mask only
    where some example that has it is padded, and is in `present` only where some example lacks it:
    what is not masked need not be attended to through a mask.

    Args:
        fields: modality → what its tensors look like.
        allow_empty: take examples that have no modality at all (they turned out to be broken).
        mix: changes whole batches, MixUp for one; it is given targets (b, k), classes one-hot. What
            it draws depends on the examples alone, whichever process collates them.
        num_classes: of targets that are classes; needed to mix them.
    """

    def __init__(
        self,
        fields: Mapping[str, Field],
        *,
        allow_empty: bool = False,
        mix: Callable[[Batch], Batch] | None = None,
        num_classes: int | None = None,
    ) -> None:
        self.fields, self.allow_empty = dict(fields), allow_empty
        self.mix, self.num_classes = mix, num_classes

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """Collates.

        Raises:
            ValueError: an example has no modality at all, has a shape other than the rest, or
                holds NaN or infinity; the message names the example.
        """
        if not isinstance(examples, Examples):
            examples = Examples.of(examples)
        batch = Batch(
            inputs={}, targets=examples.targets, known=dict(examples.known), ids=examples.ids
        )
        nothing = [None] * len(examples)
        for name, field in self.fields.items():
            rows = examples.inputs.get(name, nothing)
            shapes = [None if row is None else tuple(row.shape) for row in rows]
            _check_shapes(name, field, shapes, batch.ids)
            if None in shapes:
                batch.present[name] = torch.tensor([shape is not None for shape in shapes])
            values, mask = _join(rows, field)
            if mask is not None:
                batch.masks[name] = mask
            _check_finite(name, values, batch.ids)
            batch.inputs[name] = values
        if not self.allow_empty and len(batch.present) == len(self.fields):
            here = batch.has_any(list(self.fields)).tolist()
            if not all(here):
                raise ValueError(
                    f"Example {batch.ids[here.index(False)]} has none of the modalities "
                    f"{list(self.fields)}: remove it or give it at least one."
                )
        if self.mix is None:
            return batch
        if self.num_classes is not None:
            batch.targets = {
                name: one_hot(target, self.num_classes).float() if target.dim() == 1 else target
                for name, target in batch.targets.items()
            }
        with torch_state_kept():
            torch.default_generator.manual_seed(examples.seed)
            return self.mix(batch)


def _stacked(name: str, values: Sequence[Tensor | None], ids: Sequence[str]) -> Tensor:
    """The targets of some examples, zeros where one has none."""
    first, shown = next((v, i) for v, i in zip(values, ids, strict=True) if v is not None)
    for value, id in zip(values, ids, strict=True):
        if value is not None and value.shape != first.shape:
            raise ValueError(
                f"Examples {shown} and {id} have a {name} of shapes {tuple(first.shape)} and "
                f"{tuple(value.shape)}, which do not stack: bring them to one."
            )
    return torch.stack([torch.zeros_like(first) if value is None else value for value in values])


def scale_pixels(pixels: Tensor) -> Tensor:
    """uint8 in 0…255 → float32 in [-1, 1]."""
    return pixels.to(torch.float32).div_(127.5).sub_(1.0)


def _join(rows: Sequence[Tensor | None], field: Field) -> tuple[Tensor, Tensor | None]:
    """Rows as one tensor (b, …), zeros where there is nothing, and the mask if that is anywhere."""
    dtypes = {row.dtype for row in rows if row is not None} or {field.dtype}
    if others := dtypes - {torch.uint8, field.dtype}:  # a transform's; NumPy knows not all
        rows = [r.to(field.dtype) if r is not None and r.dtype in others else r for r in rows]
        dtypes = dtypes - others | {field.dtype}
    if len(dtypes) > 1:  # a transform turned some pixels into numbers
        rows = [scale_pixels(r) if r is not None and r.dtype == torch.uint8 else r for r in rows]
    dtype = dtypes.pop() if len(dtypes) == 1 else field.dtype
    if field.is_ragged:
        empty = torch.zeros((0, *field.shape), dtype=dtype)
    else:
        size = (*field.shape[:-2], 0, 0) if field.has_own_size else field.shape
        empty = torch.zeros(size, dtype=dtype)
    full = [empty if row is None else row for row in rows]
    if field.is_ragged:
        values, mask = _pad_lengths(full, field)
    elif field.has_own_size:
        values, mask = _pad_sizes(full, field)
    else:
        values, mask = torch.stack(full), None
    if dtype == torch.uint8 and field.dtype == torch.float32:
        # Once for the batch. Padding is zero after scaling, as if it had never been there.
        values = scale_pixels(values)
        if mask is not None:
            values.mul_(mask[:, None])
        if absent := [number for number, row in enumerate(rows) if row is None]:
            values[absent] = 0
    return values.to(field.dtype), mask


def _pad_lengths(rows: list[Tensor], field: Field) -> tuple[Tensor, Tensor | None]:
    """Rows (length, *shape) → (b, longest, *shape), zeros at the end, and the mask (b, longest)."""
    lengths = [row.shape[0] for row in rows]
    longest = field.padded_length(max(lengths))
    values = torch.zeros((len(rows), longest, *field.shape), dtype=rows[0].dtype)
    mask = np.arange(longest) < np.array(lengths)[:, None]
    # In NumPy, which takes a fifth of torch's time for a short row.
    if longest <= _SHORT:
        values.numpy()[mask] = torch.cat(rows).numpy()
    else:
        for padded, row, length in zip(values.numpy(), rows, lengths, strict=True):
            padded[:length] = row.numpy()
    is_full = all(length in (0, longest) for length in lengths)
    return values, None if is_full else torch.from_numpy(mask)


def _pad_sizes(rows: Sequence[Tensor], field: Field) -> tuple[Tensor, Tensor | None]:
    """Rows (c, height, width) → (b, c, highest, widest), zeros below and right, and the mask."""
    heights, widths = (torch.tensor([row.shape[axis] for row in rows]) for axis in (1, 2))
    height, width = field.padded_size(int(heights.max()), int(widths.max()))
    values = torch.zeros((len(rows), len(rows[0]), height, width), dtype=rows[0].dtype)
    for target, row in zip(values, rows, strict=True):
        target[:, : row.shape[1], : row.shape[2]] = row
    if all(tuple(row.shape[1:]) in ((0, 0), (height, width)) for row in rows):
        return values, None
    is_row = torch.arange(height) < heights[:, None]
    return values, is_row[:, :, None] & (torch.arange(width) < widths[:, None])[:, None]


def _check_shapes(
    name: str, field: Field, shapes: Sequence[tuple[int, ...] | None], ids: Sequence[str]
) -> None:
    first: tuple[str, tuple[int, ...]] | None = None
    for size, id in zip(shapes, ids, strict=True):
        if size is None:
            continue
        if field.is_ragged:
            if len(size) != 1 + len(field.shape) or size[0] == 0:
                raise ValueError(
                    f"Example {id} has {name} of shape {size}, expected a length "
                    f"of at least 1 followed by {field.shape}."
                )
            size = size[1:]
        elif field.has_own_size:
            fits = len(size) == 3 and size[0] == field.shape[0] and min(size) > 0
            if not fits or size[1] > field.shape[1] or size[2] > field.shape[2]:
                raise ValueError(
                    f"Example {id} has {name} of shape {size}, data.{name} promises the model at "
                    f"most {field.shape}: change data.{name} or the transforms."
                )
            continue
        if first is None:
            first = id, size
        elif size != first[1]:
            raise ValueError(
                f"Examples {first[0]} and {id} have {name} of shapes {first[1]} and "
                f"{size}, which do not stack: bring them to one size (data.{name})."
            )
    if first is not None and first[1] != field.shape:
        raise ValueError(
            f"Example {first[0]} has {name} of shape {first[1]}, data.{name} promises the model "
            f"{field.shape}: change data.{name} or the transforms."
        )


def _check_finite(name: str, values: Tensor, ids: Sequence[str]) -> None:
    # A sum takes a tenth of the time; that it overflows proves nothing.
    if not values.is_floating_point() or values.sum().isfinite() or values.isfinite().all():
        return
    bad = (~values.isfinite()).flatten(1).any(dim=1).nonzero()[0].item()
    raise ValueError(f"Example {ids[bad]} has NaN or infinity in its {name}: remove or repair it.")
