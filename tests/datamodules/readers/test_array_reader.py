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


def fitted(values):
    return ArrayReader(**ArrayReader.fit({}, [Numbers(values)]))


def test_an_outlier_does_not_flatten_the_rest():
    values = np.random.default_rng(0).normal(size=(499, 2))
    values[7, 0] = 1e300
    reader = fitted(values)
    assert reader.curves[1] is None  # nothing is odd about the other column
    scaled = np.stack([reader.decode(row, where="") for row in values])[..., 0]
    assert np.isfinite(scaled).all()
    rest = np.arange(len(values)) != 7
    # The others are about as they would be without it, and no two are the same.
    assert np.corrcoef(scaled[rest, 0], values[rest, 0])[0, 1] > 0.99
    assert abs(scaled[rest, 0].std() - 1) < 0.05
    assert len(set(scaled[:, 0])) == len(values)
    assert scaled[7, 0] == scaled[:, 0].max() < 4


def test_skewed_numbers_become_about_normal_as_scikit_learn_makes_them():
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    values = np.exp(2 * np.random.default_rng(1).normal(size=(997, 1)))
    reader = fitted(values)
    found = np.array([reader.decode(row, where="")[0, 0].item() for row in values])
    other = preprocessing.QuantileTransformer(n_quantiles=997, output_distribution="normal")
    expected = other.fit_transform(values)[:, 0]
    middle = np.abs(expected) < 2
    np.testing.assert_allclose(found[middle], expected[middle], atol=0.06)
    # What lies beyond all training rows is as their outermost.
    assert reader.decode([1e9], where="")[0, 0].item() == pytest.approx(found.max())
    assert reader.decode([-5.0], where="")[0, 0].item() == pytest.approx(found.min())


def test_rows_together_are_what_they_are_one_by_one():
    values = np.exp(np.random.default_rng(2).normal(size=(53, 3)) * [0.1, 3, 0.2])
    values[::5, 0] = np.nan
    reader = fitted(values)
    assert [curve is None for curve in reader.curves] == [True, False, True]
    cells = [*values, None, np.full(3, np.nan)]
    together = reader.decode_all(cells)
    assert together[-2:] == [None, None]
    for row, found in zip(values, together, strict=False):
        assert torch.equal(found, reader.decode(row, where=""))


def test_a_value_far_beyond_all_others_stays_finite_and_on_its_side():
    values = OPTIONS.decode([1e300, -1e300, 0.5], where="row 7")
    assert values.isfinite().all()
    assert values[0, 0] > 100
    assert values[1, 0] < -100


def test_a_curve_that_falls_back_is_refused():
    curve = [[1.0, 1.0], [0.0, 1.0]]
    with pytest.raises(ValueError, match=r"data\.array\.curves has 2 values and 2 scores"):
        ArrayReader(length=1, mean=[0.0], std=[1.0], curves=[curve])
