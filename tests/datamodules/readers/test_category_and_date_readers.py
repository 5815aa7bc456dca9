"""CategoryReader: ids of values, known, unknown and missing; DateReader: parts of the calendar."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import torch

from datamodules.core.columns import Categories, Numbers
from datamodules.readers.category import CategoryReader
from datamodules.readers.date import DateReader

COLOURS = ["red", "green", "blue"]


@pytest.fixture
def column():
    """Colour and shape of seven rows; one shape comes once, one row has nothing."""
    colours, shapes = [0, 1, 0, 1, -1, 2, 2], [0, 0, 0, 0, -1, -1, 1]
    return Categories(np.array([colours, shapes]).T, [COLOURS, ["round", "square"]])


def test_cells_are_the_names_and_a_row_of_none_is_absent(column):
    assert [cell is None or cell.tolist() for cell in column] == [
        ["red", "round"],
        ["green", "round"],
        ["red", "round"],
        ["green", "round"],
        True,
        ["blue", ""],
        ["blue", "square"],
    ]
    assert column.absent().tolist() == [False] * 4 + [True] + [False] * 2
    assert column.take(np.array([6, 4])).take(np.array([0]))[0].tolist() == ["blue", "square"]


def test_values_that_come_twice_have_ids_of_their_own_and_others_share_one(column):
    reader = CategoryReader(**CategoryReader.fit({}, [column]))
    assert reader.values == (("blue", "green", "red"), ("round",))
    assert reader.sizes == (5, 3)
    ids = {name: reader.decode([name, "round"], where="")[0].item() for name in COLOURS}
    assert ids == {"blue": 2, "green": 3, "red": 4}
    assert reader.decode(["red", "round"], where="").tolist() == [4, 7]
    assert reader.decode([" red ", "square"], where="").tolist() == [4, 6]  # of one row: unknown
    assert reader.decode(["mauve", None], where="").tolist() == [1, 5]
    assert reader.decode(["", None], where="") is None
    assert reader.field().dtype == reader.decode(["red", ""], where="").dtype == torch.int64


def test_one_category_needs_no_list():
    reader = CategoryReader(values=[COLOURS], sizes=[5])
    assert reader.decode("green", where="").tolist() == [3]


def test_categories_that_do_not_fit_are_named():
    reader = CategoryReader(values=[COLOURS], sizes=[5])
    with pytest.raises(ValueError, match="row 7 has 2 categories, the model reads 1"):
        reader.decode(["red", "round"], where="row 7")
    with pytest.raises(ValueError, match=r"sizes=\[3\], but data.category.values asks for \[5\]"):
        CategoryReader(values=[COLOURS], sizes=[3])


@pytest.mark.parametrize("days", [0, 59, 4321, -9876])
@pytest.mark.parametrize("hours", [0, 7.5])
def test_a_date_is_its_time_and_its_place_in_year_week_and_day(days, hours):
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=days, hours=hours)
    reader = DateReader(length=2, mean=[86400.0, 0.0], std=[3600.0, 1.0])
    found = reader.decode([moment.strftime("%Y-%m-%d %H:%M:%S"), None], where="").double()
    assert found.shape == reader.field().shape == (2, 13)
    seconds = moment.timestamp()
    assert found[0, 0].item() == pytest.approx((seconds - 86400) / 3600)
    year = (moment - datetime(moment.year, 1, 1, tzinfo=UTC)) / timedelta(days=365.2425)
    angle = np.arctan2(found[0, 1].item(), found[0, 2].item()) / (2 * np.pi)
    assert abs((angle - year + 0.5) % 1 - 0.5) < 0.005  # leap days move it by one day at most
    assert np.arctan2(found[0, 3], found[0, 4]).item() / (2 * np.pi) % 1 == pytest.approx(
        hours / 24, abs=1e-6
    )
    assert found[0, 5:12].argmax() == moment.weekday()
    assert found[0, 5:12].sum() == 1
    assert found[:, 12].tolist() == [0, 1]
    assert found[1, :12].abs().max() == 0
    assert torch.equal(reader.decode(np.array([seconds, np.nan]), where="").double(), found)


def test_what_is_no_date_is_named():
    reader = DateReader(length=1, mean=[0.0], std=[1.0])
    with pytest.raises(ValueError, match="row 7 holds 'soon', which is no date: write 2024-02-29"):
        reader.decode("soon", where="row 7")
    with pytest.raises(ValueError, match=r"row 7 has 2 dates, the model reads 1"):
        reader.decode(["2024-02-29"] * 2, where="row 7")


def test_mean_and_deviation_of_dates_are_those_of_training():
    seconds = np.random.default_rng(0).normal(1.7e9, 1e7, (97, 1))
    options = DateReader.fit({}, [Numbers(seconds)])
    assert options == {
        "length": 1,
        "mean": [pytest.approx(seconds.mean())],
        "std": [pytest.approx(seconds.std())],
    }
