"""Examples → one `Batch`: ragged inputs padded and masked, absent modalities filled with zeros."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from datamodules.randomness import torch_seed
from perceiver.types import Batch


@dataclass
class Example:
    """One example, as a dataset yields it.

    Args:
        inputs: modality → tensor; None = the example lacks the modality.
        target: class index, or a tensor of 0/1 labels or real values.
        id: a name that leads a reader to the example (file, line), for error messages.
        seed: of what is drawn for the batch that it comes first in.
    """

    inputs: dict[str, Tensor | None]
    target: int | Tensor
    id: str
    seed: int = 0


@dataclass(frozen=True)
class Field:
    """What the tensors of one modality look like.

    Args:
        shape: of one example; of one element where `is_ragged`.
        dtype: of the values.
        is_ragged: examples are (length, *shape) with lengths of their own.
        pad_multiple: padded lengths are rounded up to a multiple of this (fewer distinct shapes).
        max_length: padding never exceeds this; None = no limit.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    is_ragged: bool = False
    pad_multiple: int = 1
    max_length: int | None = None

    def padded_length(self, length: int) -> int:
        """The length of a batch whose longest example has `length` elements."""
        rounded = -(-max(length, 1) // self.pad_multiple) * self.pad_multiple
        return rounded if self.max_length is None else max(length, min(rounded, self.max_length), 1)


class Collator:
    """Callable for DataLoader: list of examples → `Batch`.

    Every modality of `fields` is in `inputs` and in `present` whatever the examples hold. A ragged
    modality has a mask only where some row is not full; absent rows are all False in it.

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
        for example in () if self.allow_empty else examples:
            if all(example.inputs.get(name) is None for name in self.fields):
                raise ValueError(
                    f"Example {example.id} has none of the modalities {list(self.fields)}: "
                    "remove it or give it at least one."
                )
        batch = Batch(inputs={}, target=_targets(examples), ids=[e.id for e in examples])
        for name, field in self.fields.items():
            rows = [example.inputs.get(name) for example in examples]
            batch.present[name] = torch.tensor([row is not None for row in rows])
            _check_shapes(name, field, examples)
            if field.is_ragged:
                batch.inputs[name], mask = _pad(rows, field)
                if not mask.all():
                    batch.masks[name] = mask
            else:
                zeros = torch.zeros(field.shape, dtype=field.dtype)
                batch.inputs[name] = torch.stack(
                    [zeros if row is None else row.to(field.dtype) for row in rows]
                )
            _check_finite(name, batch.inputs[name], batch.ids)
        if self.mix is None:
            return batch
        if batch.target.dim() == 1:
            batch.target = one_hot(batch.target, self.num_classes).float()
        with torch_seed(examples[0].seed):
            return self.mix(batch)


def _targets(examples: Sequence[Example]) -> Tensor:
    if isinstance(examples[0].target, Tensor):
        return torch.stack([example.target for example in examples])
    return torch.tensor([example.target for example in examples])


def _pad(rows: Sequence[Tensor | None], field: Field) -> tuple[Tensor, Tensor]:
    """Rows (length, *shape) → (b, longest, *shape), zeros at the end, and the mask (b, longest)."""
    lengths = torch.tensor([0 if row is None else len(row) for row in rows])
    longest = field.padded_length(int(lengths.max()))
    padded = torch.zeros((len(rows), longest, *field.shape), dtype=field.dtype)
    for target, row in zip(padded, rows, strict=True):
        if row is not None:
            target[: len(row)] = row
    return padded, torch.arange(longest) < lengths[:, None]


def _check_shapes(name: str, field: Field, examples: Sequence[Example]) -> None:
    first: Example | None = None
    for example in examples:
        row = example.inputs.get(name)
        if row is None:
            continue
        if field.is_ragged and (row.ndim != 1 + len(field.shape) or len(row) == 0):
            raise ValueError(
                f"Example {example.id} has {name} of shape {tuple(row.shape)}, expected a length "
                f"of at least 1 followed by {field.shape}."
            )
        size = tuple(row.shape[1:] if field.is_ragged else row.shape)
        if first is None:
            first, first_size = example, size
        elif size != first_size:
            raise ValueError(
                f"Examples {first.id} and {example.id} have {name} of shapes {first_size} and "
                f"{size}, which do not stack: bring them to one size (data.{name})."
            )
    if first is not None and first_size != field.shape:
        raise ValueError(
            f"Example {first.id} has {name} of shape {first_size}, data.{name} promises the model "
            f"{field.shape}: change data.{name} or the transforms."
        )


def _check_finite(name: str, values: Tensor, ids: Sequence[str]) -> None:
    if not values.is_floating_point() or values.isfinite().all():
        return
    bad = (~values.isfinite()).flatten(1).any(dim=1).nonzero()[0].item()
    raise ValueError(f"Example {ids[bad]} has NaN or infinity in its {name}: remove or repair it.")
