"""Running the transforms of a config, and saying which one failed on what."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from datamodules.readers import Reader

Transforms = Sequence[Callable[[Tensor], Tensor]]


def apply(steps: Transforms, value: Tensor, *, option: str, id: str) -> Tensor:
    """The value after all steps, in order.

    Args:
        steps: callables on one modality's tensor.
        value: the tensor of an example.
        option: where the steps stand in the config, for the message.
        id: of the example, for the message.

    Raises:
        ValueError: a step cannot handle the value, or gives nothing.
    """
    for number, step in enumerate(steps):
        given = value
        try:
            value = step(given)
        except (ValueError, TypeError, RuntimeError, IndexError) as error:
            what = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"{option}[{number}] ({type(step).__name__}) cannot handle example {id}, of "
                f"{_described(given)}: {what}. Change or remove it."
            ) from error
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{option}[{number}] ({type(step).__name__}) gives {type(value).__name__} for "
                f"example {id}, of {_described(given)}, expected a tensor. Change or remove it."
            )
    return value


def finish(
    column: Sequence[Tensor | None],
    steps: Transforms,
    *,
    reader: Reader | None,
    option: str,
    ids: Sequence[str],
) -> list[Tensor | None]:
    """What training, evaluation and prediction all end with.

    The steps of `data.transform`; what is longer than the model takes is cut.

    Args:
        column: one modality of some examples.
        steps: see `apply`.
        reader: of the modality.
        option: see `apply`.
        ids: of the examples.
    """
    if steps:
        column = [
            None if value is None else apply(steps, value, option=option, id=id)
            for value, id in zip(column, ids, strict=True)
        ]
    longest = reader.longest if reader is not None else None
    if longest is None:
        return list(column)
    return [
        value if value is None or value.shape[0] <= longest else value[:longest] for value in column
    ]


def _described(value: Tensor) -> str:
    return f"shape {tuple(value.shape)} and type {str(value.dtype).removeprefix('torch.')}"
