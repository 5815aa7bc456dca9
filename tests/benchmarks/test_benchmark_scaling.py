"""Exponents of curves whose exponents are known."""

from __future__ import annotations

import pytest

from benchmarks.scaling import AXES, curve, exponent


@pytest.mark.parametrize("power", [0.0, 1.0, 1.7])
def test_the_exponent_of_a_power_is_found(power):
    assert exponent({x: 3 * x**power for x in (2, 5, 11, 23)}) == pytest.approx(power)


def test_sizes_below_the_least_are_left_out():
    values = {1: 1e6, 10: 10.0, 100: 100.0}
    assert exponent(values, 10) == pytest.approx(1.0)
    assert exponent(values) < 0


def test_a_single_point_has_no_exponent():
    with pytest.raises(ValueError, match="two points"):
        exponent({10: 1.0, 20: 2.0}, 15)


def test_a_curve_is_read_from_results(results):
    axis = results["scaling"]["axes"]["tokens"]
    assert curve(axis, "ours", "train", "seconds")[10_000] == pytest.approx(0.01)
    assert curve(axis, "ours", "train", "memory")[1024] == 102_400
    assert curve(axis, "hf", "train", "memory") == {}


def test_the_axis_of_tokens_spans_ten_thousand_times_and_nothing_else_changes():
    points = AXES["tokens"].points
    assert min(points) < 2_000
    assert max(points) > 10**7
    assert all(sizes.num_tokens == size for size, sizes in points.items())
    assert len({(s.num_latents, s.latent_dim, s.token_dim) for s in points.values()}) == 1
