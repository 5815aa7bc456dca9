"""The differentiable neural computer's memory (Graves et al. 2016, Nature 538, Methods)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
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

_USAGE_FLOOR = 1e-6  # the released code's: no usage is exactly 0, so no product of them is


@dataclass(frozen=True)
class DNCState:
    """What a differentiable neural computer's memory carries from step to step.

    Args:
        memory: (b, n, w) n rows of width w.
        usage: (b, n) how much each row is in use, in [0, 1].
        precedence: (b, n) how far each row was the last one written.
        links: (b, n, n) how far row i was written right after row j.
        read_weights: (b, r, n) where each read head looked last.
        write_weights: (b, n) where the write head looked last.
    """

    memory: Tensor
    usage: Tensor
    precedence: Tensor
    links: Tensor
    read_weights: Tensor
    write_weights: Tensor


def update_usage(
    usage: Float[Tensor, "b n"],
    write_weights: Float[Tensor, "b n"],
    read_weights: Float[Tensor, "b r n"],
    free_gates: Float[Tensor, "b r"],
) -> Float[Tensor, "b n"]:
    """u = (u' + w' − u' w') Π_r (1 − f_r w'_r): written rows are used, freed ones are not."""
    retention = (1 - free_gates[..., None] * read_weights).prod(dim=1)
    return (usage + write_weights - usage * write_weights) * retention


def allocation(usage: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """a[φ_j] = (1 − u[φ_j]) Π_{i<j} u[φ_i], φ the rows by rising usage: where there is room.

    Of rows used exactly alike the lower index comes first. The order is not differentiated, the
    usages are; in the products they are kept off 0, u ← 10⁻⁶ + (1 − 10⁻⁶) u.
    """
    # Before they are kept off 0: that rounds small usages to the same number.
    order = usage.detach().argsort(dim=-1, stable=True)
    usage = _USAGE_FLOOR + (1 - _USAGE_FLOOR) * usage
    ranked = usage.gather(-1, order)
    before = torch.cat([torch.ones_like(ranked[:, :1]), ranked[:, :-1]], dim=-1).cumprod(-1)
    return torch.zeros_like(usage).scatter(-1, order, (1 - ranked) * before)


def update_links(
    links: Float[Tensor, "b n n"],
    precedence: Float[Tensor, "b n"],
    write_weights: Float[Tensor, "b n"],
) -> Float[Tensor, "b n n"]:
    """L_ij = (1 − w_i − w_j) L'_ij + w_i p'_j with an empty diagonal, p' the last precedence."""
    w = write_weights
    linked = (1 - w[:, :, None] - w[:, None]) * links + w[:, :, None] * precedence[:, None]
    return linked * (1 - torch.eye(w.shape[-1], dtype=w.dtype, device=w.device))


def update_precedence(
    precedence: Float[Tensor, "b n"], write_weights: Float[Tensor, "b n"]
) -> Float[Tensor, "b n"]:
    """p = (1 − Σ_i w_i) p' + w."""
    return (1 - write_weights.sum(-1, keepdim=True)) * precedence + write_weights


def follow_links(
    links: Float[Tensor, "b n n"], read_weights: Float[Tensor, "b r n"]
) -> tuple[Float[Tensor, "b r n"], Float[Tensor, "b r n"]]:
    """f = L w' and b = Lᵀ w': the rows written right after, and right before, those read last."""
    return read_weights @ links.mT, read_weights @ links


class DNCMemory(Memory):
    """A differentiable neural computer's memory: one write head, any number of read heads.

    A step writes before it reads (Methods, in their order): usage and allocation, write weights,
    memory, temporal links, read weights, read vectors. All weightings sum to at most 1.

    Args:
        control_dim: width of the control vector.
        num_rows: rows n of the memory; a step costs O(n²).
        row_dim: width w of a row.
        num_reads: read heads.

    Raises:
        ValueError: for a size below 1.
    """

    def __init__(
        self, control_dim: int, *, num_rows: int = 16, row_dim: int = 16, num_reads: int = 1
    ) -> None:
        super().__init__()
        check_sizes(
            control_dim=control_dim, num_rows=num_rows, row_dim=row_dim, num_reads=num_reads
        )
        self.num_rows, self.row_dim, self.num_reads = num_rows, row_dim, num_reads
        self.read_dim = num_reads * row_dim
        # The interface vector: read keys and strengths, write key and strength, erase and write
        # vectors, free gates, allocation and write gate, read modes.
        r, w = num_reads, row_dim
        self._sizes = [r * w, r, w, 1, w, w, r, 1, 1, 3 * r]
        self.to_interface = nn.Linear(control_dim, sum(self._sizes), bias=False)
        nn.init.xavier_uniform_(self.to_interface.weight)

    def initial(self, batch: int, like: Tensor) -> DNCState:
        """All zeros: an empty memory, nothing used, written or read."""
        n = self.num_rows
        return DNCState(
            memory=like.new_zeros(batch, n, self.row_dim),
            usage=like.new_zeros(batch, n),
            precedence=like.new_zeros(batch, n),
            links=like.new_zeros(batch, n, n),
            read_weights=like.new_zeros(batch, self.num_reads, n),
            write_weights=like.new_zeros(batch, n),
        )

    def step(
        self, control: Float[Tensor, "b c"], state: DNCState
    ) -> tuple[Float[Tensor, "b read_dim"], Weightings, DNCState]:
        check_shape("control", control, state.memory.shape[0], self.to_interface.in_features)
        (
            read_keys,
            read_strengths,
            write_key,
            write_strength,
            erase,
            add,
            free_gates,
            allocation_gate,
            write_gate,
            modes,
        ) = self.to_interface(control).split(self._sizes, dim=-1)

        usage = update_usage(
            state.usage, state.write_weights, state.read_weights, free_gates.sigmoid()
        )
        content = content_weights(state.memory, write_key[:, None], oneplus(write_strength))
        room = allocation(usage)
        mixed = torch.lerp(content[:, 0], room, allocation_gate.sigmoid())
        written = write_gate.sigmoid() * mixed
        memory = write(state.memory, written[:, None], erase.sigmoid()[:, None], add[:, None])
        links = update_links(state.links, state.precedence, written)
        precedence = update_precedence(state.precedence, written)

        keys = read_keys.unflatten(-1, (self.num_reads, -1))
        found = content_weights(memory, keys, oneplus(read_strengths))
        later, earlier = follow_links(links, state.read_weights)
        pi = modes.unflatten(-1, (self.num_reads, 3)).softmax(-1)
        reading = pi[..., :1] * earlier + pi[..., 1:2] * found + pi[..., 2:] * later

        words = read(memory, reading).flatten(1)
        after = DNCState(memory, usage, precedence, links, reading, written)
        return words, Weightings(reading, written[:, None]), after
