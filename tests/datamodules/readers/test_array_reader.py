"""ArrayReader: standardised numbers, with those that are missing marked."""

import numpy as np
import pytest
import torch

from datamodules.core.columns import Numbers
from datamodules.readers.array import ArrayReader

OPTIONS = ArrayReader(length=3, mean=[1.0, 10.0, 0.0], std=[2.0, 5.0, 1.0])


def test_numbers_are_standardised_and_missing_ones_marked():
    values = OPTIONS.decode(np.array([5.0, np.nan, -1.0]), where="row 7")
    assert values.tolist() == [[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]
    assert values.dtype == torch.float32
    assert OPTIONS.field().shape == (3, 2)


def test_none_is_a_missing_number_and_nothing_else_is_absent():
    assert OPTIONS.decode([None, 10, None], where="row 7")[:, 1].tolist() == [1.0, 0.0, 1.0]
    assert OPTIONS.decode([None] * 3, where="row 7") is None


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ([1.0, 2.0], "row 7 has 2 numbers, the model reads 3"),
        ([1.0, np.inf, 2.0], "row 7 holds an infinite number"),
        (["one", 2, 3], "row 7 is not a list of numbers"),
    ],
)
def test_cells_that_do_not_fit_are_named(cell, message):
    with pytest.raises(ValueError, match=message):
        OPTIONS.decode(cell, where="row 7")


def test_mean_and_deviation_are_those_of_the_known_numbers():
    random = np.random.default_rng(0)
    values = random.normal(size=(997, 3)) * [1, 100, 0] + [0, 7, 5]
    values[::3, 1] = np.nan
    values[5] = np.nan
    fitted = ArrayReader(**ArrayReader.fit({}, [Numbers(values)]))
    np.testing.assert_allclose(fitted.mean, np.nanmean(values, axis=0))
    # The third never changes: dividing by 1 keeps it finite.
    np.testing.assert_allclose(fitted.std[:2], np.nanstd(values, axis=0)[:2])
    assert fitted.std[2] == pytest.approx(1.0)


def test_numbers_that_are_missing_everywhere_stay_finite():
    values = np.array([[1.0, np.nan], [3.0, np.nan]])
    fitted = ArrayReader(**ArrayReader.fit({}, [Numbers(values)]))
    assert fitted.decode(values[0], where="").isfinite().all()


@pytest.mark.parametrize("options", [{"mean": [0.0]}, {"std": [1.0]}, {"std": [1.0, 0.0]}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=rf"data\.array\.{next(iter(options))}"):
        ArrayReader(**({"length": 2, "mean": [0.0] * 2, "std": [1.0] * 2} | options))
