"""Partial softmaxes put together: the softmax over all keys."""

from functools import partial

import torch

from perceiver.attention.kernels import merge
from perceiver.attention.kernels.merge import with_sink
from perceiver.attention.normalisers import logsumexp, softmax

assert_close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-9)


def test_merging_partial_softmaxes_is_softmax_over_all(scores, keep):
    value = torch.randn(2, 3, 7, 2, dtype=torch.float64)
    parts = []
    for columns in (slice(0, 3), slice(3, 4), slice(4, 7)):
        s, m = scores[..., columns], keep[..., columns]
        parts.append((softmax(s, m) @ value[:, :, columns], logsumexp(s, m)))
    out, lse = merge(merge(parts[0], parts[1]), parts[2])
    assert_close(out, softmax(scores, keep) @ value)
    assert_close(lse, logsumexp(scores, keep))
    other, _ = merge(parts[2], merge(parts[1], parts[0]))
    assert_close(other, out)
    assert_close(with_sink(out, lse, 0.3), softmax(scores, keep, sink=0.3) @ value)


def test_merging_has_finite_gradients_where_nothing_is_kept():
    out = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    lse = torch.tensor([-torch.inf, 0.5], dtype=torch.float64, requires_grad=True)
    merged, total = merge((out, lse), (out, lse))
    (merged.sum() + total[1]).backward()
    assert out.grad.isfinite().all()
    assert lse.grad.isfinite().all()
    assert total[0] == -torch.inf
