"""Modality dropout: rates as asked, never everything, never what was not there."""

import math

import pytest
import torch

from perceiver.adapters import ModalityDropout

N = 20011


def everything(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.ones(N, dtype=torch.bool) for name in names}


def kept_shares(p, present) -> dict[str, float]:
    torch.manual_seed(7)
    kept = ModalityDropout(p=p).train()(present)
    assert list(kept) == list(present)
    return {name: flags.double().mean().item() for name, flags in kept.items()}


def close(share: float):
    """Within five standard deviations of a share of N draws."""
    return pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / N) + 1e-12)


def test_each_modality_is_dropped_as_often_as_asked():
    # All three are dropped with p³; then one of them, each as likely, comes back.
    p = 0.4
    shares = kept_shares(p, everything("audio", "image", "text"))
    assert all(share == close(1 - p + p**3 / 3) for share in shares.values())


def test_modalities_may_have_rates_of_their_own_and_the_rest_is_kept():
    shares = kept_shares({"image": 0.7, "audio": 0.2}, everything("audio", "image", "text"))
    assert shares == {"audio": close(0.8), "image": close(0.3), "text": 1.0}


def test_what_comes_back_is_what_came_closest_to_being_kept():
    # Both draws fell below their rates r and s; back comes the smaller shortfall, of [0, r) and
    # of [0, s): for s < r that of s with probability 1 − s / 2r.
    r, s = 0.9, 0.3
    shares = kept_shares({"often": r, "seldom": s}, everything("often", "seldom"))
    both = r * s
    assert shares["often"] == close(1 - r + both * s / (2 * r))
    assert shares["seldom"] == close(1 - s + both * (1 - s / (2 * r)))


@pytest.mark.parametrize("p", [0.3, 0.9, 1.0])
def test_every_example_keeps_something_that_it_had(p):
    torch.manual_seed(3)
    present = {name: torch.rand(N) < 0.5 for name in ("audio", "image", "text")}
    had = torch.stack(list(present.values()))
    kept = torch.stack(list(ModalityDropout(p=p).train()(present).values()))
    assert not (kept & ~had).any()
    assert torch.equal(kept.any(0), had.any(0))
    if p == 1.0:
        assert (kept.sum(0) <= 1).all()


def test_an_example_without_anything_stays_so():
    present = {"image": torch.zeros(5, dtype=torch.bool), "text": torch.zeros(5, dtype=torch.bool)}
    kept = ModalityDropout(p=0.5).train()(present)
    assert not torch.stack(list(kept.values())).any()


def test_examples_are_drawn_one_by_one():
    kept = ModalityDropout(p=0.5).train()(everything("image", "text"))
    both = kept["image"] & kept["text"]
    assert 0 < both.sum() < N


def test_nothing_is_dropped_at_rate_0_nor_in_evaluation():
    present = everything("image", "text")
    for dropout in (ModalityDropout(p=0.0).train(), ModalityDropout(p=0.9).eval()):
        assert all(flags.all() for flags in dropout(present).values())


@pytest.mark.parametrize("p", [0.3, {"image": 0.7, "text": 0.25}])
def test_an_example_loses_what_its_draws_less_the_rates_say(p):
    present = {"image": torch.rand(N) < 0.9, "text": torch.ones(N, dtype=torch.bool)}
    torch.manual_seed(11)
    kept = ModalityDropout(p=p).train()(present)
    torch.manual_seed(11)
    rates = torch.tensor(list(p.values()) if isinstance(p, dict) else [p, p])
    margin = torch.rand(N, 2) - rates
    for column, (name, other) in enumerate((("image", "text"), ("text", "image"))):
        mine, its = margin[:, column], margin[:, 1 - column]
        alone = ~(present[other] & ((its >= 0) | (its > mine)))
        expected = present[name] & ((mine >= 0) | alone)
        assert (kept[name] == expected).all()


@pytest.mark.parametrize(("p", "names"), [(0.0, ("image", "text")), (1.0, ("image",))])
def test_where_nothing_can_be_dropped_nothing_is_drawn(p, names):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    present = everything(*names)
    kept = ModalityDropout(p=p).train()(present)
    assert all(kept[name] is present[name] for name in names)
    assert torch.equal(torch.rand(1), expected)


def test_the_flags_that_are_given_are_not_changed():
    present = everything("image", "text")
    ModalityDropout(p=0.9).train()(present)
    assert all(flags.all() for flags in present.values())


@pytest.mark.parametrize("p", [-0.1, 1.1, {"image": 0.5, "text": 2.0}])
def test_impossible_rates_are_refused(p):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        ModalityDropout(p=p)
