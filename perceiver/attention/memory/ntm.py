"""The Neural Turing Machine's memory (Graves, Wayne & Danihelka 2014, arXiv:1410.5401)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceiver.attention.memory.content import (
    Memory,
    Weightings,
    content_weights,
    oneplus,
    read,
    write,
)
from perceiver.ops.checks import check_shape, check_sizes
from perceiver.shapes import Float


@dataclass(frozen=True)
class NTMState:
    """What a Neural Turing Machine's memory carries from step to step.

    Args:
        memory: (b, n, w) n rows of width w.
        weights: (b, h, n) where each head looked last; read heads before write heads.
    """

    memory: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Addressing:
    """How h heads address the memory, in the ranges that the equations ask for.

    Args:
        key: (b, h, w) what content to look for.
        strength: (b, h) β ≥ 0.
        gate: (b, h) g in [0, 1]: content against where the head looked last.
        shift: (b, h, 2m + 1) a distribution over shifts by −m … m rows.
        sharpness: (b, h) γ ≥ 1.
    """

    key: Tensor
    strength: Tensor
    gate: Tensor
    shift: Tensor
    sharpness: Tensor


def interpolate(
    content: Float[Tensor, "b h n"], previous: Float[Tensor, "b h n"], gate: Float[Tensor, "b h"]
) -> Float[Tensor, "b h n"]:
    """w = g w^c + (1 − g) w_{t−1} (eq. 7)."""
    return previous + gate[..., None] * (content - previous)


def shift(
    weights: Float[Tensor, "b h n"], shifts: Float[Tensor, "b h s"]
) -> Float[Tensor, "b h n"]:
    """w~_i = Σ_j w_j s_{(i−j) mod n} (eq. 8): a shift by +1 moves what is at row i to row i + 1.

    Args:
        shifts: weights of the shifts by −m … m rows, s = 2m + 1.
    """
    reach = shifts.shape[-1] // 2
    moved = [weights.roll(offset, dims=-1) for offset in range(-reach, reach + 1)]
    return (torch.stack(moved, dim=-1) @ shifts[..., None]).squeeze(-1)


def sharpen(
    weights: Float[Tensor, "b h n"], sharpness: Float[Tensor, "b h"]
) -> Float[Tensor, "b h n"]:
    """w_i^γ / Σ_j w_j^γ (eq. 9), as softmax(γ log w), which no power can underflow to 0/0."""
    wide = weights.float() if weights.dtype.itemsize < 4 else weights
    logs = (wide + torch.finfo(wide.dtype).tiny).log()
    return torch.softmax(sharpness[..., None] * logs, dim=-1).to(weights.dtype)


def address(
    memory: Float[Tensor, "b n w"], previous: Float[Tensor, "b h n"], how: Addressing
) -> Float[Tensor, "b h n"]:
    """Content → interpolation → shift → sharpening (eq. 5 to 9); the weights sum to 1."""
    content = content_weights(memory, how.key, how.strength)
    return sharpen(shift(interpolate(content, previous, how.gate), how.shift), how.sharpness)


class NTMMemory(Memory):
    """A Neural Turing Machine's memory with its read and write heads.

    A step addresses the rows as the last step left them, reads, then writes: the order of the
    published implementations, where the paper leaves it open.

    The memory starts at a small constant (Collier & Beel 2018, arXiv:1807.08518: the start that
    trains fastest and most surely), and where the heads look first is learned.

    Args:
        control_dim: width of the control vector.
        num_rows: rows n of the memory.
        row_dim: width w of a row.
        num_reads: read heads.
        num_writes: write heads.
        max_shift: rows m that a head can move in one step, either way.
        memory_init: what every entry of the memory starts at.

    Raises:
        ValueError: for a size below 1, or shifts that reach round the whole memory.
    """

    def __init__(
        self,
        control_dim: int,
        *,
        num_rows: int = 128,
        row_dim: int = 20,
        num_reads: int = 1,
        num_writes: int = 1,
        max_shift: int = 1,
        memory_init: float = 1e-6,
    ) -> None:
        super().__init__()
        check_sizes(
            control_dim=control_dim,
            num_rows=num_rows,
            row_dim=row_dim,
            num_reads=num_reads,
            num_writes=num_writes,
        )
        if max_shift < 0 or 2 * max_shift + 1 > num_rows:
            raise ValueError(
                f"max_shift={max_shift} must be at least 0 and reach over fewer rows than "
                f"num_rows={num_rows}: 2 · max_shift + 1 ≤ num_rows"
            )
        self.num_rows, self.row_dim = num_rows, row_dim
        self.num_reads, self.num_writes = num_reads, num_writes
        self.memory_init = memory_init
        self.read_dim = num_reads * row_dim
        self._head_sizes = [row_dim, 1, 1, 2 * max_shift + 1, 1]  # key, β, g, s, γ
        heads = num_reads + num_writes
        self.to_heads = nn.Linear(control_dim, heads * sum(self._head_sizes))
        self.to_writes = nn.Linear(control_dim, num_writes * 2 * row_dim)  # erase, add
        for layer in (self.to_heads, self.to_writes):
            nn.init.xavier_uniform_(layer.weight, gain=1.4)  # Collier & Beel's released code
            nn.init.normal_(layer.bias, std=0.01)
        # All heads start at row 0: rows that are alike under weights that are would stay alike.
        self.first_focus = nn.Parameter(torch.zeros(heads, num_rows))
        nn.init.constant_(self.first_focus[:, 0], 10.0)

    def initial(self, batch: int, like: Tensor) -> NTMState:
        """A constant memory and the learned first weights."""
        focus = self.first_focus.to(like).softmax(-1)
        return NTMState(
            memory=like.new_full((batch, self.num_rows, self.row_dim), self.memory_init),
            weights=focus.expand(batch, -1, -1),
        )

    def addressing(self, control: Float[Tensor, "b c"]) -> Addressing:
        """What all heads ask for: read heads, then write heads."""
        heads = self.to_heads(control).unflatten(-1, (-1, sum(self._head_sizes)))
        key, strength, gate, shifts, sharpness = heads.split(self._head_sizes, dim=-1)
        return Addressing(
            key=key,
            strength=F.softplus(strength).squeeze(-1),
            gate=gate.sigmoid().squeeze(-1),
            shift=shifts.softmax(-1),
            sharpness=oneplus(sharpness).squeeze(-1),
        )

    def step(
        self, control: Float[Tensor, "b c"], state: NTMState
    ) -> tuple[Float[Tensor, "b read_dim"], Weightings, NTMState]:
        check_shape("control", control, state.memory.shape[0], self.to_heads.in_features)
        weights = address(state.memory, state.weights, self.addressing(control))
        reading, writing = weights.split([self.num_reads, self.num_writes], dim=1)
        vectors = self.to_writes(control).unflatten(-1, (self.num_writes, 2, self.row_dim))
        memory = write(state.memory, writing, vectors[:, :, 0].sigmoid(), vectors[:, :, 1])
        words = read(state.memory, reading).flatten(1)
        return words, Weightings(reading, writing), NTMState(memory, weights)
