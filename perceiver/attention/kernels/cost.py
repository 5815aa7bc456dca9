"""What kernels cost, by counting multiply-adds and the numbers that they hold."""

from __future__ import annotations

import math

from perceiver.attention.context import Context
from perceiver.attention.kernels.problem import Problem

# Numbers that a kernel may hold before a leaner one is preferred: 1 GiB.
ROOMY = 1 << 28


def projecting(problem: Problem) -> int:
    """Multiply-adds of the projections of keys and values."""
    return math.prod(problem.context.shape) * problem.heads.num_projected


def projections(problem: Problem) -> int:
    """Numbers of all keys and values, and of the tokens that they are made of."""
    b, keys, _ = problem.context.shape
    return joining(problem) + b * keys * problem.heads.num_projected


def joining(problem: Problem) -> int:
    """Numbers of segments joined to tokens, and once more when normalised."""
    return 2 * math.prod(problem.context.shape) if isinstance(problem.context, Context) else 0
