"""Recurrent cells around an external memory: a controller that writes and reads it every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from perceiver.attention.memory.content import Memory, Weightings
from perceiver.attention.memory.dnc import DNCMemory
from perceiver.attention.memory.ntm import NTMMemory
from perceiver.ops.checks import check_shape, check_sizes
from perceiver.shapes import Float


@dataclass(frozen=True)
class CellState:
    """What a memory-augmented cell carries from step to step.

    Args:
        controller: (h, c) of an LSTM, each (b, hidden_dim); empty for a feed-forward controller.
        read: (b, read_dim) what was read last.
        memory: the memory's own state.
    """

    controller: tuple[Tensor, ...]
    read: Tensor
    memory: Any


class MemoryCell(nn.Module):
    """A recurrent cell: the controller sees [input; last read] and its output drives the memory.

    The output is [controller; read], so that a linear layer on it is the papers' output layer.

    Args:
        input_dim: width of an input.
        hidden_dim: width of the controller.
        memory: makes the memory from control_dim=.
        controller: "lstm" or "feed_forward" (one layer of tanh units).
        input_std: standard deviation of the first weights on the input. The inputs of the papers'
            tasks are a few ones among zeros; torch's own start, below 1/√hidden_dim, leaves all
            control vectors nearly alike, and keys made from them too.

    Attributes:
        output_dim: width of an output.

    Raises:
        ValueError: for another controller or a size below 1.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        *,
        memory: Callable[..., Memory],
        controller: str = "lstm",
        input_std: float = 1.0,
    ) -> None:
        super().__init__()
        check_sizes(input_dim=input_dim, hidden_dim=hidden_dim)
        if controller not in ("lstm", "feed_forward"):
            raise ValueError(f"controller={controller!r} must be lstm or feed_forward")
        self.input_dim, self.hidden_dim = input_dim, hidden_dim
        self.memory = memory(control_dim=hidden_dim)
        width = input_dim + self.memory.read_dim
        self.controller: nn.Module
        if controller == "lstm":
            self.controller = nn.LSTMCell(width, hidden_dim)
            weights = self.controller.weight_ih
        else:
            layer = nn.Linear(width, hidden_dim)
            self.controller, weights = nn.Sequential(layer, nn.Tanh()), layer.weight
        nn.init.normal_(weights[:, :input_dim], std=input_std)
        self.output_dim = hidden_dim + self.memory.read_dim

    def initial(self, batch: int, like: Tensor) -> CellState:
        """The state before the first step, of the type and on the device of `like`."""
        zeros = like.new_zeros(batch, self.hidden_dim)
        return CellState(
            controller=(zeros, zeros) if isinstance(self.controller, nn.LSTMCell) else (),
            read=like.new_zeros(batch, self.memory.read_dim),
            memory=self.memory.initial(batch, like),
        )

    def step(
        self, x: Float[Tensor, "b input_dim"], state: CellState
    ) -> tuple[Float[Tensor, "b output_dim"], Weightings | None, CellState]:
        """One step: (output, where the heads looked, the next state).

        Raises:
            ValueError: for an input of another shape.
        """
        check_shape("x", x, state.read.shape[0], self.input_dim)
        seen = torch.cat([x, state.read], dim=-1)
        carried: tuple[Tensor, ...] = ()
        if isinstance(self.controller, nn.LSTMCell):
            carried = self.controller(seen, state.controller)
            control = carried[0]
        else:
            control = self.controller(seen)
        words, weights, memory = self.memory.step(control, state.memory)
        return torch.cat([control, words], dim=-1), weights, CellState(carried, words, memory)


class NTMCell(MemoryCell):
    """A Neural Turing Machine as a recurrent cell (Graves et al. 2014).

    Args:
        input_dim: width of an input.
        hidden_dim: width of the controller.
        controller, input_std: see `MemoryCell`.
        num_rows, row_dim, num_reads, num_writes, max_shift, memory_init: see `NTMMemory`.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int = 100,
        *,
        controller: str = "lstm",
        num_rows: int = 128,
        row_dim: int = 20,
        num_reads: int = 1,
        num_writes: int = 1,
        max_shift: int = 1,
        memory_init: float = 1e-6,
        input_std: float = 1.0,
    ) -> None:
        def memory(control_dim: int) -> NTMMemory:
            return NTMMemory(
                control_dim,
                num_rows=num_rows,
                row_dim=row_dim,
                num_reads=num_reads,
                num_writes=num_writes,
                max_shift=max_shift,
                memory_init=memory_init,
            )

        super().__init__(
            input_dim, hidden_dim, memory=memory, controller=controller, input_std=input_std
        )


class DNCCell(MemoryCell):
    """A differentiable neural computer as a recurrent cell (Graves et al. 2016).

    Args:
        input_dim: width of an input.
        hidden_dim: width of the controller.
        controller, input_std: see `MemoryCell`.
        num_rows, row_dim, num_reads: see `DNCMemory`.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int = 64,
        *,
        controller: str = "lstm",
        num_rows: int = 16,
        row_dim: int = 16,
        num_reads: int = 1,
        input_std: float = 1.0,
    ) -> None:
        def memory(control_dim: int) -> DNCMemory:
            return DNCMemory(control_dim, num_rows=num_rows, row_dim=row_dim, num_reads=num_reads)

        super().__init__(
            input_dim, hidden_dim, memory=memory, controller=controller, input_std=input_std
        )
