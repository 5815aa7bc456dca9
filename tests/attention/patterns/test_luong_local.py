"""Luong's local attention against the paper's equations in loops."""

from __future__ import annotations

import math

import pytest
import torch

from perceiver.attention import LuongAttention
from perceiver.attention.patterns.luong_local import sentence_lengths

LENGTHS = (11, 4)


def example(queries=5):
    x = torch.randn(2, queries, 6, dtype=torch.float64)
    annotations = torch.randn(2, 11, 6, dtype=torch.float64)
    return x, annotations, torch.arange(11) < torch.tensor(LENGTHS)[:, None]


def expected_rows(attention, x, annotations, centres, reach, gaussian):
    """align inside the window, times the Gaussian, not normalised again."""
    weights = torch.zeros(2, x.shape[1], 11, dtype=torch.float64)
    for b, length in enumerate(LENGTHS):
        for t in range(x.shape[1]):
            p = centres[b][t]
            middle = math.floor(p)
            window = [s for s in range(middle - reach, middle + reach + 1) if 0 <= s < length]
            if not window:
                continue
            scores = [x[b, t] @ attention.score.weight @ annotations[b, s] for s in window]
            for s, align in zip(window, torch.stack(scores).softmax(0), strict=True):
                sigma = reach / 2
                gain = math.exp(-((s - p) ** 2) / (2 * sigma**2)) if gaussian else 1.0
                weights[b, t, s] = align * gain
    return weights


def test_local_p_predicts_its_window():
    attention = LuongAttention(6, 6, local="predictive", reach=2).double()
    torch.nn.init.normal_(attention.pattern.to_hidden.weight)
    x, annotations, mask = example()
    local = attention.pattern
    centres = [
        [
            length
            / (1 + math.exp(-(local.to_centre.weight[0] @ (local.to_hidden.weight @ h).tanh())))
            for h in x[b]
        ]
        for b, length in enumerate(LENGTHS)
    ]
    result = attention(x, annotations, mask=mask, need_weights=True)
    expected = expected_rows(attention, x, annotations, centres, 2, gaussian=True)
    torch.testing.assert_close(result.weights[:, 0], expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(result.out, expected @ annotations, rtol=0, atol=1e-9)
    torch.testing.assert_close(
        result.aux.centre, torch.tensor(centres, dtype=torch.float64), rtol=0, atol=1e-9
    )


def test_local_m_follows_the_diagonal_and_reads_zeros_past_the_sentence():
    attention = LuongAttention(6, 6, local="monotonic", reach=2).double()
    x, annotations, mask = example(queries=9)
    centres = [list(range(9))] * 2
    result = attention(x, annotations, mask=mask, need_weights=True)
    expected = expected_rows(attention, x, annotations, centres, 2, gaussian=False)
    torch.testing.assert_close(result.weights[:, 0], expected, rtol=0, atol=1e-9)
    assert (result.out[1, 6:] == 0).all()
    step = attention(x[:, 3:4], annotations, mask=mask, step=3)
    torch.testing.assert_close(step.out, result.out[:, 3:4])


def test_the_centre_learns_through_the_gaussian_alone():
    attention = LuongAttention(6, 6, local="predictive", reach=2).double()
    x, annotations, mask = example()
    result = attention(x, annotations, mask=mask, need_weights=True)
    weights = result.weights[:, 0]
    (gradient,) = torch.autograd.grad(weights.sum(), result.aux.centre)
    keys, centre = torch.arange(11), result.aux.centre[..., None]
    # d exp(−(s − p)²/(2σ²))/dp = exp(…) (s − p)/σ², σ = D/2 = 1; windows do not move with p.
    expected = (weights * (keys - centre)).sum(-1)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_does_not_move_the_window(dtype):
    """Of 300 places bfloat16 can name one in two: the centre is a number of float32."""
    attention = LuongAttention(6, 6, local="predictive", reach=2).to(dtype)
    x, annotations = torch.randn(2, 5, 6).to(dtype), torch.randn(2, 307, 6).to(dtype)
    local = attention.pattern
    logits = local.to_centre(local.to_hidden(x).tanh())[..., 0]
    result = attention(x, annotations, need_weights=True)
    assert result.aux.centre.dtype == torch.float32
    torch.testing.assert_close(result.aux.centre, 307 * logits.float().sigmoid())
    # The Gaussian is of the distance from that centre, which a window of five shows.
    scores = attention.score(x[:, None], annotations[:, None])[:, 0].float()
    keys, centre = torch.arange(307), result.aux.centre[..., None]
    inside = (keys - centre.floor()).abs() <= 2
    align = scores.masked_fill(~inside, -torch.inf).softmax(-1)
    expected = align * torch.exp(-((keys - centre) ** 2) / 2)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(result.weights[:, 0].float(), expected, rtol=4 * eps, atol=eps)


def test_lengths_reach_to_the_last_kept_key():
    keep = torch.tensor([[True, False, True, False], [False] * 4])[:, None, None]
    assert sentence_lengths(keep, 2, 4, keep.device).tolist() == [3, 0]
    assert sentence_lengths(None, 2, 4, keep.device).tolist() == [4, 4]


@pytest.mark.parametrize("options", [{"local": "diagonal"}, {"local": "monotonic", "reach": 0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=r"local='diagonal'|reach=0"):
        LuongAttention(6, 6, **options)
