"""Rotary positions against complex numbers and Llama's code."""

from __future__ import annotations

import math

import pytest
import torch

from perceiver.attention.positions.rotary import RoPE, rotate


def test_interleaved_pairs_turn_as_complex_numbers():
    x, positions = torch.randn(2, 3, 5, 8, dtype=torch.float64), torch.tensor([-2, 0, 1, 7, 100])
    expected = torch.zeros_like(x)
    for n, p in enumerate(positions.tolist()):
        for m in range(4):
            angle = p * 10000 ** (-2 * m / 8)
            turn = complex(math.cos(angle), math.sin(angle))
            turned = torch.complex(x[:, :, n, 2 * m], x[:, :, n, 2 * m + 1]) * turn
            expected[:, :, n, 2 * m], expected[:, :, n, 2 * m + 1] = turned.real, turned.imag
    torch.testing.assert_close(rotate(x, positions), expected, rtol=0, atol=1e-9)


def test_halves_turn_as_in_llama():
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    query, key = torch.randn(2, 3, 7, 8, dtype=torch.float64), torch.randn(2, 3, 7, 8).double()
    positions = torch.arange(7)
    frequency = 500.0 ** -(torch.arange(0, 8, 2).double() / 8)
    angles = positions[:, None] * frequency
    angles = torch.cat([angles, angles], -1)[None]
    expected = llama.apply_rotary_pos_emb(query, key, angles.cos(), angles.sin())
    position = RoPE(query_dim=8, layout="half", base=500.0)
    for ours, theirs in zip(
        position.rotate(query, key, positions, positions), expected, strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_layouts_are_a_permutation_apart():
    x, positions = torch.randn(1, 1, 5, 6, dtype=torch.float64), torch.arange(5)
    order = torch.tensor([0, 2, 4, 1, 3, 5])
    halves = rotate(x[..., order], positions, layout="half")
    torch.testing.assert_close(rotate(x, positions)[..., order], halves)


def test_products_depend_on_the_distance_alone():
    query, key = torch.randn(1, 1, 1, 6).double(), torch.randn(1, 1, 1, 6).double()
    position = RoPE(query_dim=6)

    def product(p, j):
        q, k = position.rotate(query, key, torch.tensor([p]), torch.tensor([j]))
        return (q * k).sum()

    torch.testing.assert_close(product(5, 2), product(103, 100), rtol=0, atol=1e-9)
    assert (product(5, 2) - product(5, 3)).abs() > 1e-3


def test_a_partial_rotation_leaves_the_rest_alone():
    x, positions = torch.randn(1, 2, 5, 10, dtype=torch.float64), torch.arange(5)
    turned = rotate(x, positions, rotary_dim=4)
    assert (turned[..., 4:] == x[..., 4:]).all()
    torch.testing.assert_close(turned[..., :4], rotate(x[..., :4], positions))


def test_angles_are_exact_in_half_precision():
    x = torch.randn(1, 1, 1, 64)
    far = torch.tensor([4093])
    half = rotate(x.bfloat16(), far).float()
    # Twice bfloat16's rounding; an angle in bfloat16 would be off by radians.
    torch.testing.assert_close(half, rotate(x.bfloat16().float(), far), rtol=0, atol=0.04)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"query_dim": 5}, "rotary_dim=5 must be even"),
        ({"query_dim": 4, "rotary_dim": 6}, "head's width 4"),
        ({"query_dim": 4, "layout": "halves"}, "layout='halves'"),
    ],
)
def test_impossible_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        RoPE(**options)
