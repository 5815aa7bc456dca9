"""What attention returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class AttentionAux(NamedTuple):
    """What an attention knows beside its result; None where it has no such thing.

    Args:
        lse: (b, h, q) log-sum-exp of the kept scores, from softmax when weights are asked for and
            from the kernels flex and chunked.
        log_prob: (b, h, q) log-probability of the key that `gumbel_st` or `reinforce` reads.
        entropy: (b, h, q) entropy of the distribution that it was drawn from.
        centre: (b, q) centre of the window of `luong_local`.
    """

    lse: Tensor | None = None
    log_prob: Tensor | None = None
    entropy: Tensor | None = None
    centre: Tensor | None = None


class AttentionOutput(NamedTuple):
    """What attention returns.

    Args:
        out: (b, q, out_dim).
        weights: (b, h, q, k) on the values, before dropout, if they were asked for, else None.
        aux: what losses need besides.
    """

    out: Tensor
    weights: Tensor | None = None
    aux: AttentionAux = AttentionAux()
