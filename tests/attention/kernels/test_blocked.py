"""Blocks of scores, one after the other, against all scores at once."""

from __future__ import annotations

import pytest
import torch

from perceiver.attention import Attention
from perceiver.attention.kernels import blocked as module
from perceiver.attention.kernels import sdpa
from perceiver.attention.kernels.blocked import blocked, pays
from perceiver.ops import matmul as matrices

SIZES = (2, 3, 5, 7)  # examples, heads, queries, keys


def tensors():
    b, h, q, k = SIZES
    query, key = torch.randn(b, h, q, 2).double(), torch.randn(b, h, k, 2).double()
    return [x.requires_grad_() for x in (query, key, torch.randn(b, h, k, 11).double())]


def dense(query, key, value, keep, scale):
    scores = scale * torch.einsum("bhqd,bhkd->bhqk", query, key)
    if keep is not None:
        scores = scores.masked_fill(~keep, -torch.inf)
    return scores.softmax(-1) @ value


@pytest.mark.parametrize("block", [1, 8, 15, 36, 100, 1000])
@pytest.mark.parametrize("kept", [None, (2, 1, 1, 7), (1, 3, 5, 7), (2, 3, 5, 1), (1, 1, 5, 7)])
def test_blocks_of_any_size_give_results_and_gradients_of_all_scores(block, kept, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", block)
    torch.manual_seed(0)
    keep = None if kept is None else torch.rand(kept) < 0.7
    if keep is not None and kept[3] > 1:
        keep[..., 3] = True
    elif keep is not None:
        keep[:] = True
    given = tensors()
    ours, expected = blocked(*given, keep=keep, scale=0.7), dense(*given, keep, 0.7)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    factor = torch.randn_like(expected)
    grads = [torch.autograd.grad((out * factor).sum(), given) for out in (ours, expected)]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("lengths", [(5, 7), (9, 4)])  # more keys, more queries
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(
    ("rows", "group", "batch"),
    [(4, 1, 1), (9, 1, 1), (9, 2, 1), (9, 3, 1), (9, 3, 2)],  # of queries, heads, examples
)
def test_groups_that_onednn_multiplies(kept, lengths, rows, group, batch, monkeypatch):
    (b, h), (q, k), calls = SIZES[:2], lengths, []
    rows, allowed = min(rows, q), matrices.rounding_allowed
    monkeypatch.setattr(matrices, "rounding_allowed", lambda: calls.append(1) or allowed())
    monkeypatch.setattr(matrices, "MKL_IS_SLOW", True)
    monkeypatch.setattr(matrices, "LEAST_WORK", 1)
    monkeypatch.setattr(matrices, "LEAST_SIDE", 1)
    monkeypatch.setattr(module, "BLOCK", batch * group * rows * k)
    torch.manual_seed(0)
    given = [torch.randn(b, n, h, d).transpose(1, 2) for n, d in ((q, 4), (k, 4), (k, 11))]
    given = [x.requires_grad_() for x in given]
    keep = torch.rand(b, 1, q, k) < 0.7 if kept else None
    if kept:
        keep[..., 3] = True
    ours, expected = blocked(*given, keep=keep, scale=0.7), dense(*given, keep, 0.7)
    torch.testing.assert_close(ours, expected)
    # Heads are merged, as an attention does: their gradients lie apart.
    factor = torch.randn(b, q, h * 11)
    losses = [(x.transpose(1, 2).flatten(-2) * factor).sum() for x in (ours, expected)]
    grads = [torch.autograd.grad(loss, given) for loss in losses]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)
    blocks = -(-b // batch) * -(-h // group) * -(-q // rows)
    # Two products forward, five backward.
    assert len(calls) == (7 * blocks if matrices.NEVER_ROUNDS else 0)


def test_the_operator_keeps_the_rules_of_its_kind():
    torch.manual_seed(0)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(module._attend, (*tensors(), None, 0.7), test_utils=checks)


@pytest.mark.parametrize(
    ("sizes", "widths", "where_mkl_is_quick", "where_it_is_slow"),
    [
        ((8, 256, 2048), (32, 160), True, True),  # torch's kernel would pad queries and keys to 160
        ((8, 256, 256), (64, 96), True, True),
        ((8, 256, 256), (64, 80), False, True),  # and here only a little
        ((8, 512, 512), (128, 128), True, True),  # wide heads: products outweigh passes over scores
        ((8, 256, 256), (128, 128), True, True),
        ((8, 1024, 1024), (128, 128), False, True),  # too many scores for the cache
        ((1, 512, 512), (128, 128), False, True),  # nothing for the second core
        ((8, 256, 2048), (32, 32), False, True),
        ((1, 512, 8192), (64, 64), False, True),
        ((8, 32, 4096), (64, 64), False, False),  # too few queries to a product
        ((8, 4096, 32), (64, 64), False, False),
        ((8, 32, 32), (32, 160), False, False),  # too few scores for the calls
    ],
)
def test_it_is_for_wide_heads_and_wider_values_in_full_precision(
    sizes, widths, where_mkl_is_quick, where_it_is_slow, monkeypatch
):
    """And for all large products where oneDNN makes them, as torch's kernel has MKL do."""
    monkeypatch.setattr(matrices, "NEVER_ROUNDS", True)
    for mkl_is_slow, expected in ((False, where_mkl_is_quick), (True, where_it_is_slow)):
        monkeypatch.setattr(matrices, "MKL_IS_SLOW", mkl_is_slow)
        assert pays(*sizes, widths, is_half=False) is expected
        assert not pays(*sizes, widths, is_half=True)
    monkeypatch.setattr(matrices, "NEVER_ROUNDS", False)  # MKL is slow, and nothing else serves
    assert pays(*sizes, widths, is_half=False) is (where_it_is_slow and widths[1] > widths[0] * 1.4)


@pytest.mark.parametrize("is_compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_sdpa_leaves_wide_values_to_it(is_compiled, monkeypatch):
    called = []
    monkeypatch.setattr(module, "LEAST_SCORES", 1)
    monkeypatch.setattr(sdpa, "blocked", lambda *a, **k: called.append(1) or blocked(*a, **k))
    torch.manual_seed(0)
    attention = Attention(6, 5, num_heads=2, qk_dim=4, v_dim=34, kernel="sdpa").double()
    query, context = torch.randn(2, 3, 6).double(), torch.randn(2, 7, 5).double()
    mask = torch.arange(7) < torch.tensor([[5], [0]])
    run = torch.compile(attention, backend="aot_eager") if is_compiled else attention
    ours = run(query, context, mask=mask).out
    assert called
    attention.kernel = "dense"
    torch.testing.assert_close(ours, attention(query, context, mask=mask).out)
