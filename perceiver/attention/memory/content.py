"""What all external memories share: addressing by content, reading, and gates' ranges."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceiver.shapes import Float


class Weightings(NamedTuple):
    """Where the heads of one step looked, on n rows.

    Args:
        read: (b, r, n), a row for each read head.
        write: (b, s, n), a row for each write head.
    """

    read: Tensor
    write: Tensor


class Memory(nn.Module):
    """Base of memories that a controller writes and reads a step at a time.

    The state is an argument and a result; a memory keeps nothing of its own but parameters.

    Attributes:
        read_dim: numbers that a step reads, over all heads.
    """

    read_dim: int

    @abstractmethod
    def initial(self, batch: int, like: Tensor) -> Any:
        """The state before the first step, of the type and on the device of `like`."""

    @abstractmethod
    def step(
        self, control: Float[Tensor, "b c"], state: Any
    ) -> tuple[Float[Tensor, "b read_dim"], Weightings | None, Any]:
        """One step: (what was read, where the heads looked, the next state)."""


def cosine(
    memory: Float[Tensor, "b n w"], key: Float[Tensor, "b h w"], *, eps: float = 1e-6
) -> Float[Tensor, "b h n"]:
    """k·M_i / (|k| |M_i| + ε): 0, not NaN, for an empty row (Graves et al. 2014, eq. 6)."""
    norms = key.norm(dim=-1)[..., None] * memory.norm(dim=-1)[:, None]
    return key @ memory.mT / (norms + eps)


def content_weights(
    memory: Float[Tensor, "b n w"],
    key: Float[Tensor, "b h w"],
    strength: Float[Tensor, "b h"],
    *,
    eps: float = 1e-6,
) -> Float[Tensor, "b h n"]:
    """w_i = softmax_i(β cos(k, M_i)) (Graves et al. 2014, eq. 5; 2016, Methods).

    A memory of zeros gives every row the same weight.
    """
    return torch.softmax(strength[..., None] * cosine(memory, key, eps=eps), dim=-1)


def read(memory: Float[Tensor, "b n w"], weights: Float[Tensor, "b h n"]) -> Float[Tensor, "b h w"]:
    """r = Σ_i w_i M_i (Graves et al. 2014, eq. 2)."""
    return weights @ memory


def write(
    memory: Float[Tensor, "b n w"],
    weights: Float[Tensor, "b h n"],
    erase: Float[Tensor, "b h w"],
    add: Float[Tensor, "b h w"],
) -> Float[Tensor, "b n w"]:
    """M_i Π_h (1 − w_hi e_h) + Σ_h w_hi a_h (Graves et al. 2014, eq. 3 and 4).

    All heads erase before any adds, so that their order does not matter.
    """
    if weights.shape[1] == 1:  # an outer product each: much cheaper than a product over heads
        kept = 1 - weights.mT * erase
    else:
        kept = (1 - weights[..., None] * erase[:, :, None]).prod(dim=1)
    return memory * kept + weights.mT @ add


def oneplus(x: Tensor) -> Tensor:
    """1 + log(1 + eˣ): at least 1 (Graves et al. 2016, Methods)."""
    return 1 + F.softplus(x)
