"""What the columns of a table are read as: numbers, categories and dates as people write them."""

from datetime import date, datetime

import numpy as np
import pyarrow as pa
import pytest

from datamodules.layouts.column_kind import column_kind
from datamodules.layouts.table import numbers
from datamodules.layouts.written import dates


@pytest.fixture
def make(make_manifest):
    return make_manifest


def column(cells):
    return pa.chunked_array([pa.array(list(cells))])


def rows(**columns):
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


LABELS = ["cat", "dog"] * 30
RANDOM = np.random.default_rng(0)
VALUES = RANDOM.normal(size=60).round(3).tolist()


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1,234.5", "2", None, "-12,000"], [1234.5, 2, None, -12000]),
        (["$1,234", "-$5", "$ .5"], [1234, -5, 0.5]),
        (["7 €", "€8"], [7, 8]),
        (["12 %", "3.5%"], [12, 3.5]),
        (["1 234", "12 345 678"], [1234, 12345678]),
        (["1,5", "2,25", "3"], [1.5, 2.25, 3]),
        (["1.234,5", "2"], [1234.5, 2]),
        (["1.5", "2,5"], None),
        (["1,2,3", "4"], None),
        (["3rd", "4"], None),
        (["2024-02-29"], None),
        (["1e300", "2"], [1e300, 2]),
    ],
)
def test_numbers_are_read_as_people_write_them_if_all_are(cells, expected):
    found = numbers(column(cells))
    assert (found and found.to_pylist()) == expected


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["2024-02-29", None], datetime(2024, 2, 29)),
        (["2024-02-29T13:05:07.25Z"], datetime(2024, 2, 29, 13, 5, 7)),
        (["2024-02-29 13:05"], datetime(2024, 2, 29, 13, 5)),
        (["29.02.2024"], datetime(2024, 2, 29)),
        (["03/02/2024", "01/31/2024"], datetime(2024, 3, 2)),
        (["03/02/2024", "31/01/2024"], datetime(2024, 2, 3)),
        (["Feb 29, 2024"], datetime(2024, 2, 29)),
        ([date(2024, 2, 29), None], datetime(2024, 2, 29)),
        ([datetime(2024, 2, 29, 13, 5)], datetime(2024, 2, 29, 13, 5)),
        (["2024-02-29", "soon"], None),
        (["12:30"], None),
        (["red"], None),
    ],
)
def test_dates_are_read_in_the_form_that_all_cells_have(cells, expected):
    found = dates(column(cells))
    if expected is None:
        assert found is None
    else:
        assert found[0].as_py() == (expected - datetime(1970, 1, 1)).total_seconds()
        assert found.null_count == cells.count(None)


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["red", "green", None] * 20, "category"),
        ([True, False, None] * 20, "array"),
        (["yes", "no"] * 30, "category"),
        (["very good indeed, thanks", "not so good at all"] * 300, "category"),
        ([f"a sentence with a number, {n}" for n in range(60)], "text"),
        ([f"P{n}" for n in range(60)], "names, 60 different"),
        (["red"] * 60, "all the same"),
        (["x", None] * 30, "category"),
        ([3] * 60, "all the same"),
        (range(5, 65), "row numbers"),
        ([1, 2, 3] * 20, "array"),
        (["1", "2", "3 or more"] * 20, "category"),
        ([f"{n / 7:.3f}" for n in range(59)] + ["unknown"], "array"),
        ([f"2024-{n % 12 + 1:02}-01" for n in range(60)], "date"),
        (["2024-01-01"] * 60, "all the same"),
        ([None] * 60, "empty"),
    ],
)
def test_a_column_is_read_as_what_its_cells_are(cells, kind):
    assert column_kind("it", column(cells)) == kind


def test_a_stray_word_among_numbers_is_missing_and_its_row_is_named(make, table):
    cells = [*VALUES[:41], "broken", *VALUES[42:]]
    data = make(table(rows(size=cells, label=LABELS)), target="label")
    (line,) = [line for line in data.notes if "size is of numbers" in line]
    assert "1 of 60 rows hold something else" in line
    assert "the first is 'broken' of row my.csv:42" in line
    counts = [split.source.columns["array"].absent().sum() for split in data.splits.values()]
    assert sum(counts) == 0  # a row without anything else to read is left out
    assert "warning: 1 rows have no input at all" in "".join(data.notes)


def test_a_stray_word_in_a_target_of_numbers_is_named_and_refused(make, table):
    cells = [*VALUES[:41], "broken", *VALUES[42:]]
    with pytest.raises(ValueError, match=r"my\.csv:42: the column size holds 'broken', which is"):
        make(table(rows(size=cells, age=VALUES)), target="size", targets="values")


def test_a_category_that_training_never_had_is_unknown(make, table):
    colours = ["red", "blue", "red", "blue"] * 15
    colours[59] = "mauve"
    splits = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    data = make(table(rows(colour=colours, split=splits, label=LABELS)), target="label")
    assert data.readers["category"].values == (("blue", "red"),)
    assert "category values that two training rows have: colour 2" in data.notes
    assert data.splits["test"][0, 9].inputs["category"].tolist() == [1]
    assert data.splits["test"][0, 8].inputs["category"].tolist() == [3]


def test_numbers_with_outliers_are_said_to_be_read_by_quantiles(make, table):
    sizes = [*VALUES[:17], 1e300, *VALUES[18:]]
    splits = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    data = make(table(rows(size=sizes, age=VALUES[::-1], split=splits, label=LABELS)))
    assert "array by quantiles, since skewed or with outliers: size" in data.notes
    assert data.inferred()["array"]["curves"][1] is None


def test_an_infinite_number_is_named(make, table):
    splits = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    sizes = [*VALUES[:3], "inf", *VALUES[4:]]
    data = make(table(rows(size=sizes, split=splits, label=LABELS)))
    with pytest.raises(ValueError, match=r"my\.csv:4 holds an infinite number: repair or empty"):
        data.splits["train"][0, 3]


def test_a_column_that_says_the_target_is_left_out_or_told(make, table):
    twin = {"cat": "K", "dog": "H"}
    found = rows(size=VALUES, copy=LABELS, code=[twin[label] for label in LABELS], label=LABELS)
    data = make(table(found), target="label")
    assert "ignored copy: the same as the target" in data.notes
    assert any(line.startswith("warning: code says the target of every row") for line in data.notes)
    assert data.schema.columns == {"array": ["size"], "category": ["code"]}


def test_a_table_without_anything_to_learn_from_says_why(make, table):
    found = rows(name=[f"P{n}" for n in range(60)], size=[3] * 60, label=LABELS)
    with pytest.raises(ValueError, match="name: names, 60 different; size: all the same"):
        make(table(found), target="label")


def test_whom_a_row_is_of_is_not_read_unless_named(make, table):
    found = rows(size=VALUES, speaker=["ann", "bob", "eve"] * 20, label=LABELS)
    data = make(table(found), target="label")
    assert data.schema.columns == {"array": ["size"]}
    assert "hint: data.group=speaker would keep all rows of one speaker in one split" in data.notes
    data = make(table(found), target="label", columns={"category": ["speaker"]})
    assert data.schema.columns == {"category": ["speaker"]}
    assert data.readers["category"].values == (("ann", "bob", "eve"),)


def test_what_is_named_as_dates_and_is_none_is_refused(make, table):
    with pytest.raises(ValueError, match="the column size is not of dates of one form"):
        make(table(rows(size=VALUES, label=LABELS)), columns={"date": "size"}, target="label")


def test_a_class_of_one_example_and_an_empty_column_stop_nothing(make, table):
    labels = [*LABELS[:59], "eel"]
    data = make(table(rows(size=VALUES, none=[""] * 60, label=labels)), target="label")
    assert data.class_names == ["cat", "dog", "eel"]
    assert "ignored none: empty" in data.notes
