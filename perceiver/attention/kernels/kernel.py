"""What a kernel is: a way to compute attention, which never changes the result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor

from perceiver.attention.kernels.problem import Problem
from perceiver.shapes import Bool, Float


class Result(NamedTuple):
    """What a kernel returns.

    Args:
        read: (b, h, q, d) what each head reads.
        weights: (b, h, q, k), if they were formed.
        lse, log_prob, entropy: what the normaliser knows besides.
        empty: (#b, #h, #q, 1) bool, True for queries that may attend to nothing; None = no query.
    """

    read: Tensor
    weights: Tensor | None = None
    lse: Tensor | None = None
    log_prob: Tensor | None = None
    entropy: Tensor | None = None
    empty: Tensor | None = None


class Kernel(ABC):
    """Base of kernels.

    `name`: what `kernel=` calls it.
    """

    name: str

    @abstractmethod
    def refuses(self, problem: Problem) -> str:
        """Why it cannot compute this attention, naming the axis; empty if it can."""

    @abstractmethod
    def cost(self, problem: Problem) -> int | float:
        """Multiply-adds, as a time: the cheapest runs. Infinite = only where it is asked for."""

    @abstractmethod
    def holds(self, problem: Problem) -> int:
        """Numbers that it holds beside its arguments."""

    @abstractmethod
    def run(self, problem: Problem) -> Result:
        """Compute it."""


def fully_masked(lse: Float[Tensor, "b h q"]) -> Bool[Tensor, "b h q 1"]:
    """Which queries may attend to nothing, by the log-sum-exp of their scores."""
    return lse.isneginf()[..., None]


def name_of(part: object) -> str:
    """What an error calls a member of an axis."""
    function = getattr(part, "function", part)  # of a plain function as a normaliser
    return getattr(function, "__name__", type(function).__name__)
