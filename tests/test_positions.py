"""Position codes: the paper's Fourier features, learned tables, sinusoids."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from perceiver.positions import (
    FourierPositions,
    LearnedPositions,
    SinusoidalPositions,
    fourier_features,
)


def fourier_by_loops(x: float, num_bands: int, resolution: float) -> list[float]:
    step = (resolution / 2 - 1) / (num_bands - 1)
    frequencies = [1 + band * step for band in range(num_bands)]
    return [
        x,
        *(math.sin(math.pi * f * x) for f in frequencies),
        *(math.cos(math.pi * f * x) for f in frequencies),
    ]


def test_fourier_features_by_hand():
    # Two bands to the resolution 6 have the frequencies 1 and 3, to the resolution 4, 1 and 2.
    features = fourier_features(
        torch.tensor([[0.5, 0.0], [1.0, -0.25]], dtype=torch.float64),
        num_bands=2,
        max_resolution=(6, 4),
    )
    half = math.sqrt(0.5)
    expected = torch.tensor(
        [
            # x, y, sines of x, sines of y, cosines of x, cosines of y
            [0.5, 0.0, 1.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0],
            [1.0, -0.25, 0.0, 0.0, -half, -1.0, -1.0, -1.0, half, 0.0],
        ],
        dtype=torch.float64,
    )
    assert_close(features, expected, rtol=0, atol=1e-15)


def test_fourier_features_equal_those_of_the_released_code():
    perceiver = pytest.importorskip("transformers.models.perceiver.modeling_perceiver")
    coordinates = torch.rand(1, 13, 3) * 2 - 1
    ours = fourier_features(coordinates, num_bands=5, max_resolution=(7, 11, 3))
    theirs = perceiver.generate_fourier_features(
        coordinates, num_bands=5, max_resolution=(7, 11, 3)
    )
    # Angles to 11 π/2 in float32.
    assert_close(ours, theirs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("shape", [(5,), (3, 7), (2, 3, 5)])
def test_fourier_codes_have_2k_plus_1_channels_an_axis(shape):
    positions = FourierPositions(shape=shape, num_bands=11)
    codes = positions(shape)
    assert positions.dim == len(shape) * 23
    assert [tuple(code.shape) for code in codes] == [(length, 23) for length in shape]


def test_each_axis_runs_from_minus_1_to_1_on_the_input_with_its_own_resolution():
    rows, columns = FourierPositions(shape=(7, 13), num_bands=3)((3, 5))
    expected_rows = [fourier_by_loops(x, 3, 7) for x in (-1, 0, 1)]
    expected_columns = [fourier_by_loops(x, 3, 13) for x in (-1, -0.5, 0, 0.5, 1)]
    assert_close(rows, torch.tensor(expected_rows))
    assert_close(columns, torch.tensor(expected_columns))


def test_the_finest_frequency_is_half_of_max_resolution_whatever_the_grid():
    (code,) = FourierPositions(shape=(5,), num_bands=3, max_resolution=(22,))((5,))
    expected = [fourier_by_loops(x, 3, 22) for x in (-1, -0.5, 0, 0.5, 1)]
    assert_close(code, torch.tensor(expected))
    # At x = 0.5 the last sine is that of 11 π/2.
    assert code[3, 3].item() == pytest.approx(math.sin(5.5 * math.pi), abs=1e-6)


def test_codes_keep_full_precision_at_high_frequencies():
    (code,) = FourierPositions(shape=(50021,), num_bands=64)((50021,))
    x = -1 + 2 * 12345 / 50020
    # float32 rounds the values; angles computed in float32 would be off by 0.005.
    assert_close(code[12345], torch.tensor(fourier_by_loops(x, 64, 50021)), rtol=0, atol=2e-7)


def test_absolute_codes_do_not_depend_on_the_length_of_the_input():
    positions = FourierPositions(shape=(17,), num_bands=3, absolute=True)
    (short,), (long,) = positions((5,)), positions((17,))
    assert_close(short, long[:5], rtol=0, atol=0)
    assert_close(long[4], torch.tensor(fourier_by_loops(-0.5, 3, 17)))
    assert long[0, 0] == -1
    assert long[-1, 0] == 1


def test_the_only_place_of_an_axis_stands_in_the_middle():
    (crop,) = FourierPositions(shape=(5,), num_bands=2)((1,))
    (full,) = FourierPositions(shape=(1,), num_bands=2, max_resolution=(5,), absolute=True)((1,))
    for code in (crop, full):
        assert code.tolist() == [[0.0, 0.0, 0.0, 1.0, 1.0]]


def test_impossible_grids_are_refused():
    with pytest.raises(ValueError, match=r"max_resolution=\[3\] .*shape=\[3, 5\]"):
        FourierPositions(shape=(3, 5), num_bands=2, max_resolution=(3,))
    with pytest.raises(ValueError, match=r"\(3,\) has other axes than positions \(3, 5\)"):
        FourierPositions(shape=(3, 5), num_bands=2)((3,))
    with pytest.raises(ValueError, match="input is 7 long but its positions end at 5"):
        FourierPositions(shape=(5,), num_bands=2, absolute=True)((7,))


@pytest.mark.parametrize(
    "positions",
    [FourierPositions(shape=(5,), num_bands=2), SinusoidalPositions(shape=(5,), dim=6)],
    ids=["fourier", "sinusoidal"],
)
def test_codes_made_while_validating_serve_training(positions):
    # float64, so that the codes are converted as well.
    positions.double()
    with torch.inference_mode():
        positions((5,))
    (code,) = positions((5,))
    weight = torch.randn(code.shape[1], requires_grad=True, dtype=torch.float64)
    (code @ weight).sum().backward()
    assert_close(weight.grad, code.sum(0))


@pytest.mark.parametrize(
    "positions",
    [FourierPositions(shape=(7,), num_bands=2), SinusoidalPositions(shape=(7,), dim=6)],
    ids=["fourier", "sinusoidal"],
)
def test_codes_follow_the_modules_type_without_losing_precision(positions):
    exact = positions.double()((7,))[0].clone()
    assert exact.dtype is torch.float64
    single = positions.float()((7,))[0]
    assert_close(single, exact.float(), rtol=0, atol=0)
    # Codes made in a half-precision model are the exact ones, rounded.
    half = positions.bfloat16()((7,))[0]
    assert_close(half, exact.bfloat16(), rtol=0, atol=0)


def test_constant_codes_add_nothing_to_a_checkpoint():
    positions = nn.ModuleList(
        [FourierPositions(shape=(5,), num_bands=2), SinusoidalPositions(shape=(5,), dim=6)]
    )
    assert not positions.state_dict()
    assert not list(positions.parameters())


def test_shorter_sequences_use_the_beginning_of_a_learned_table():
    positions = LearnedPositions(shape=(7,), table_dim=3)
    (code,) = positions((5,))
    assert positions.dim == 3
    assert_close(code, positions.tables[0][:5], rtol=0, atol=0)


def test_a_learned_grid_has_a_code_for_every_place():
    positions = LearnedPositions(shape=(3, 5), table_dim=7)
    (code,) = positions((3, 5))
    assert tuple(code.shape) == (15, 7)
    assert positions.dim == 7


def test_a_factored_grid_has_a_table_an_axis():
    positions = LearnedPositions(shape=(3, 5), table_dim=7, factored=True)
    rows, columns = positions((2, 5))
    assert positions.dim == 14
    assert_close(rows, positions.tables[0][:2], rtol=0, atol=0)
    assert_close(columns, positions.tables[1], rtol=0, atol=0)


def test_learned_codes_are_projected_by_one_linear_layer():
    positions = LearnedPositions(shape=(5,), table_dim=3, project_dim=7).double()
    (code,) = positions((5,))
    weight, bias = positions.project.weight, positions.project.bias
    assert positions.dim == 7
    assert_close(code, positions.tables[0] @ weight.T + bias)


def test_learned_codes_start_as_a_truncated_normal():
    table = LearnedPositions(shape=(101, 97), table_dim=2).tables[0]
    assert table.abs().max() <= 0.04
    # The standard deviation of a normal of 0.02 that is cut at two of them.
    assert table.std().item() == pytest.approx(0.02 * 0.8796, rel=0.03)
    assert abs(table.mean().item()) < 5e-4


@pytest.mark.parametrize(
    ("full", "shape", "factored"),
    [((5,), (7,), False), ((3, 5), (2, 5), False), ((3, 5), (3, 7), True), ((3, 5), (3,), True)],
)
def test_an_input_that_a_table_does_not_cover_is_refused(full, shape, factored):
    positions = LearnedPositions(shape=full, table_dim=2, factored=factored)
    with pytest.raises(ValueError, match="is not covered by positions"):
        positions(shape)


def test_sinusoids_are_those_of_the_transformer():
    (code,) = SinusoidalPositions(shape=(5,), dim=6, max_period=100.0).double()((11,))
    assert tuple(code.shape) == (11, 6)  # longer than announced is fine
    for place in (0, 1, 10):
        expected = [
            wave(place / 100.0 ** (2 * pair / 6))
            for pair in range(3)
            for wave in (math.sin, math.cos)
        ]
        assert_close(code[place], torch.tensor(expected, dtype=torch.float64))


def test_impossible_sinusoids_are_refused():
    with pytest.raises(ValueError, match="dim=5"):
        SinusoidalPositions(shape=(5,), dim=5)
    with pytest.raises(ValueError, match=r"shape=\[3, 5\]"):
        SinusoidalPositions(shape=(3, 5), dim=6)
    with pytest.raises(ValueError, match="one axis"):
        SinusoidalPositions(shape=(5,), dim=6)((3, 5))
