"""Models that read a sequence step by step: a recurrent cell and a linear layer on its outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from perceiver.shapes import Float


class LSTMCell(nn.Module):
    """An LSTM as a cell of `RecurrentModel`: what cells with a memory are compared to.

    Args:
        input_dim: width of an input.
        hidden_dim: width of the state, and of the outputs.
        input_std: standard deviation of the first weights on the input, as in `MemoryCell`.
    """

    def __init__(self, input_dim: int, hidden_dim: int, *, input_std: float = 1.0) -> None:
        super().__init__()
        self.output_dim = hidden_dim
        self.lstm = nn.LSTMCell(input_dim, hidden_dim)
        nn.init.normal_(self.lstm.weight_ih, std=input_std)

    def initial(self, batch: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Zeros, of the type and on the device of `like`."""
        zeros = like.new_zeros(batch, self.output_dim)
        return zeros, zeros

    def step(
        self, x: Float[Tensor, "b c"], state: tuple[Tensor, Tensor]
    ) -> tuple[Float[Tensor, "b d"], None, tuple[Tensor, Tensor]]:
        """One step: (output, no weightings, the next state)."""
        state = self.lstm(x, state)
        return state[0], None, state


class RecurrentModel(nn.Module):
    """A cell over the steps of a sequence; each of its outputs is mapped to an answer.

    Args:
        input_dim: width of an input.
        out_dim: width of an answer.
        cell: makes the cell from input_dim=: `NTMCell`, `DNCCell`, `MemoryCell`, `LSTMCell` or any
            module with `initial`, `step` and `output_dim` like theirs.
    """

    def __init__(self, *, input_dim: int, out_dim: int, cell: Callable[..., nn.Module]) -> None:
        super().__init__()
        made: Any = cell(input_dim=input_dim)
        self.cell = made
        self.to_answer = nn.Linear(made.output_dim, out_dim)

    def unroll(
        self, x: Float[Tensor, "b t c"], state: Any = None
    ) -> tuple[Float[Tensor, "b t k"], list[Any], Any]:
        """All answers, where the cell's heads looked at each step, and the state at the end.

        Args:
            state: what an earlier call ended with, to go on from there; None = the beginning.
        """
        cell: Any = self.cell
        state = cell.initial(x.shape[0], x) if state is None else state
        outputs, looks = [], []
        for step in x.unbind(1):
            output, weights, state = cell.step(step, state)
            outputs.append(output)
            looks.append(weights)
        return self.to_answer(torch.stack(outputs, dim=1)), looks, state

    def forward(
        self,
        inputs: Mapping[str, Float[Tensor, "b t c"]],
        masks: Mapping[str, Tensor] | None = None,
        present: Mapping[str, Tensor] | None = None,
    ) -> Float[Tensor, "b t k"]:
        """The answers to a whole sequence; the arguments are fields of `perceiver.types.Batch`.

        Args:
            inputs: {"sequence": what it is shown at each step}.
            masks: not needed: no answer depends on what comes later, as padding does.
            present: not needed.

        Raises:
            ValueError: for other inputs.
        """
        if set(inputs) != {"sequence"}:
            raise ValueError(f"a recurrent model reads 'sequence' alone, not {', '.join(inputs)}")
        return self.unroll(inputs["sequence"])[0]
