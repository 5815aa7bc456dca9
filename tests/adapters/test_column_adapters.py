"""Numbers, categories and dates of a table: a token per column, with the column's own embedding."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from perceiver.adapters import CategoryAdapter, NumberAdapter


def test_a_value_fills_the_bins_below_it_and_part_of_its_own():
    adapter = NumberAdapter(length=1, encoding="piecewise", num_features=5, dim=3)
    edges = adapter.edges.double().numpy()
    assert (np.diff(edges) > 0).all()
    for value in (edges[2], 0.3, 1.7):
        place = np.interp(value, edges, np.arange(6))  # bins passed, a fraction of one counted
        expected = np.clip(place - np.arange(5), 0, 1)
        assert_close(
            adapter.encode(torch.tensor([[value]]).float())[0, 0], torch.tensor(expected).float()
        )
    for beyond in (-7.0, 7.0):  # the sum of the outer bin goes on, and no other changes
        further = adapter.encode(torch.tensor([[beyond], [2 * beyond]]))[:, 0]
        changed = (further[0] != further[1]).tolist()
        assert changed == ([True] + [False] * 4 if beyond < 0 else [False] * 4 + [True])


def test_waves_are_of_learned_frequencies_per_column():
    adapter = NumberAdapter(length=2, encoding="periodic", num_features=3, dim=5).double()
    values = torch.tensor([[0.7, -1.3]]).double()
    encoded = adapter.encode(values)
    for column in range(2):
        for number, frequency in enumerate(adapter.frequencies[column].tolist()):
            angle = 2 * math.pi * frequency * values[0, column].item()
            assert encoded[0, column, 1 + number].item() == pytest.approx(math.sin(angle))
            assert encoded[0, column, 4 + number].item() == pytest.approx(math.cos(angle))
    assert encoded[0, :, 0].tolist() == values[0].tolist()
    assert adapter.frequencies.requires_grad


def test_each_column_has_a_direction_and_a_place_of_its_own():
    adapter = NumberAdapter(length=3, channels=2, dim=5, encoding="linear")
    adapter.weight.data.normal_()
    values = torch.randn(7, 3, 2)
    tokens = adapter(values).dense()
    for column in range(3):
        expected = values[:, column] @ adapter.weight[column] + adapter.bias[column]
        assert_close(tokens[:, column], expected)


@pytest.mark.parametrize("encoding", ["linear", "periodic", "piecewise"])
def test_a_missing_number_that_training_never_had_is_read_as_the_mean(encoding):
    adapter = NumberAdapter(length=3, dim=5, encoding=encoding)
    missing, mean = torch.tensor([[[0.0, 1.0]] * 3]), torch.zeros(1, 3, 2)
    assert_close(adapter(missing).dense(), adapter(mean).dense())
    adapter(missing).dense().square().sum().backward()
    assert adapter.weight.grad[:, -1].abs().min() > 0  # and training gives it one of its own


def test_a_category_is_its_value_and_its_column():
    adapter = CategoryAdapter(sizes=[5, 3], dim=7)
    tokens = adapter(torch.tensor([[4, 7], [0, 6]])).dense()
    assert_close(
        tokens[0],
        torch.stack([adapter.embedding.weight[4], adapter.embedding.weight[7]]) + adapter.bias,
    )
    # Missing and unknown: the column alone, until training says more.
    assert_close(tokens[1], adapter.bias)
    assert adapter.embedding.weight[[0, 1, 5, 6]].abs().max() == 0
    assert adapter.embedding.weight[[2, 3, 4, 7]].abs().min() > 0


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="encoding='cubic' must be one of linear, periodic"):
        NumberAdapter(length=2, encoding="cubic")
    with pytest.raises(ValueError, match="num_features=1 must be at least 2"):
        NumberAdapter(length=2, num_features=1)
    with pytest.raises(ValueError, match=r"\(2, 5, 2\); expected a batch, 3 numbers and 2"):
        NumberAdapter(length=3)(torch.zeros(2, 5, 2))
    with pytest.raises(ValueError, match=r"sizes=\[3, 1\]: each column has at least two ids"):
        CategoryAdapter(sizes=[3, 1])
    with pytest.raises(ValueError, match=r"\(2, 3\) and type torch.int64; expected .*\(batch, 2\)"):
        CategoryAdapter(sizes=[3, 2])(torch.zeros(2, 3, dtype=torch.int64))
