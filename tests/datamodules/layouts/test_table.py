"""read_table: every kind of table, whatever its line ends and marks; errors name the line."""

import json
import resource
import time

import pyarrow as pa
import pytest
from pyarrow import parquet

from datamodules.layouts.table import numbers, read_table, strings


@pytest.fixture
def read(tmp_path):
    """read(b"a,b\\n1,2\\n") → rows of the table with that content."""

    def read(content, name="a.csv", **options):
        raw = content.encode("utf-8") if isinstance(content, str) else content
        (tmp_path / name).write_bytes(raw)
        return read_table(tmp_path / name, **options).to_pylist()

    return read


@pytest.mark.parametrize(
    "raw",
    [
        b"a,b\n1,x\n2,y\n",
        b"\xef\xbb\xbfa,b\n1,x\n2,y\n",
        b"a,b\r\n1,x\r\n2,y\r\n",
        b"a,b\n1,x\n2,y",
        b"a,b\r1,x\r2,y\r",
        b"a;b\n1;x\n2;y\n",
        b"a|b\n1|x\n2|y\n",
        b"a\tb\n1\tx\n2\ty\n",
        b'"a","b"\n"1","x"\n"2","y"\n',
        b"a,b\n1,x\n\n2,y\n\n",
    ],
    ids=[
        "plain",
        "BOM",
        "CRLF",
        "unended",
        "CR",
        "semicolons",
        "bars",
        "tabs",
        "quoted",
        "blank-lines",
    ],
)
def test_marks_line_ends_and_delimiters_of_csv_do_not_matter(read, raw):
    assert read(raw) == [{"a": "1", "b": "x"}, {"a": "2", "b": "y"}]


def test_quoted_cells_hold_line_ends_delimiters_and_quotes(read):
    rows = read('text,label\n"one, two\nthree ""four""",x\n"five\r\nsix",y\n')
    assert [row["text"] for row in rows] == ['one, two\nthree "four"', "five\r\nsix"]


def test_quotation_marks_are_text_in_tsv_unless_said(read):
    content = 'text\tlabel\n"so it begins\tx\nand ends"\ty\n'
    assert [row["text"] for row in read(content, "a.tsv")] == ['"so it begins', 'and ends"']
    quoted = 'text\tlabel\n"one\ttwo"\tx\n'
    assert read(quoted, "a.tsv", quoted=True) == [{"text": "one\ttwo", "label": "x"}]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
def test_right_to_left_emoji_and_composed_text_survive(read, tmp_path, name):
    texts = ["שבע, שמונה", "سبعة", "👩‍👩‍👧 family", "e\u0301 naïve", "七"]
    if name == "a.parquet":
        parquet.write_table(pa.table({"text": texts, "n": ["1"] * 5}), tmp_path / name)
        raw = (tmp_path / name).read_bytes()
    elif name == "a.jsonl":
        raw = "".join(json.dumps({"text": text, "n": "1"}) + "\n" for text in texts)
    else:
        mark = "\t" if name == "a.tsv" else ","
        quote = "" if name == "a.tsv" else '"'
        raw = f"text{mark}n\n" + "".join(f"{quote}{text}{quote}{mark}1\n" for text in texts)
    assert [row["text"] for row in read(raw, name)] == texts


def test_cells_of_csv_stay_as_they_are_written(read):
    (row,) = read("id,date,flag,size\n007,2026-01-02,true,1e3\n")
    assert row == {"id": "007", "date": "2026-01-02", "flag": "true", "size": "1e3"}


def test_missing_cells_are_null_and_nothing_else_is(read):
    rows = read("a,b\n,x\nNA,y\nNone,\n", missing_cells=["", "NA"])
    assert rows == [{"a": None, "b": "x"}, {"a": None, "b": "y"}, {"a": "None", "b": None}]


def test_a_row_larger_than_what_is_parsed_at_once_is_read(read, monkeypatch):
    monkeypatch.setattr("datamodules.layouts.table._BLOCK", 1024)
    text = "word " * 3000
    assert read(f'text,label\n"{text}",x\nshort,y\n')[0]["text"] == text


def test_a_list_of_objects_is_a_table_too(read):
    assert read('[{"a": 1, "b": ["x"]}, {"a": 2, "b": []}]', "a.json") == [
        {"a": 1, "b": ["x"]},
        {"a": 2, "b": []},
    ]


def test_json_lines_take_a_byte_order_mark(read):
    assert read(b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}\r\n', "a.jsonl") == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("a,b\n1,2\n3,4,5\n6,7\n", "a.csv", r"a\.csv, line 3 has 3 columns, the first line has 2"),
        ('a,b\n"1\n1",2\n3\n', "a.csv", r"a\.csv, line 4 has 1 columns"),
        (b"a,b\n1,2\n3,\xff4\n", "a.csv", r"a\.csv, line 3 is not UTF-8 \(byte 0xff at position 2"),
        (b"a\tb\n\xe4\t2\n", "a.tsv", r"a\.tsv, line 2 is not UTF-8"),
        (b'{"a": 1}\n{"a": "\xff"}\n', "a.jsonl", r"a\.jsonl, line 2 is not UTF-8"),
        ('{"a": 1}\n{"a": \n', "a.jsonl", r"a\.jsonl, line 2 is not JSON"),
        ('{"a": 1}\n[2]\n', "a.jsonl", r"a\.jsonl, line 2 is not an object"),
        ("[1, 2]", "a.json", r"list of something else than objects"),
        ("a,b\n", "a.csv", r"a\.csv has no rows"),
        ("", "a.csv", r"a\.csv has zero bytes"),
        ("a,a\n1,2\n", "a.csv", r"several columns a"),
        ("not parquet", "a.parquet", r"a\.parquet cannot be read"),
        ("a,b\n1,2\n", "a.xlsx", r"a\.xlsx is none of \.csv"),
    ],
)
def test_a_table_that_makes_no_sense_is_named_with_its_line(read, content, name, message):
    with pytest.raises(ValueError, match=message):
        read(content, name)


def test_an_absent_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no table .*a\.csv"):
        read_table(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_bytes_that_are_not_utf8_are_replaced_if_asked(read, name):
    raw = b"a,b\nb\xe4d,2\n" if name == "a.csv" else b'{"a": "b\xe4d", "b": "2"}\n'
    assert read(raw, name, errors="replace") == [{"a": "b\ufffdd", "b": "2"}]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", " 2.5 ", None, "-3e2"], [1.0, 2.5, None, -300.0]),
        ([True, False], [1.0, 0.0]),
        ([1, None, 3], [1.0, None, 3.0]),
        (["1", "two"], None),
        (["", None], None),
        ([None, None], None),
        ([["1"]], None),
    ],
)
def test_numbers_are_told_from_names(cells, expected):
    found = numbers(pa.chunked_array([pa.array(cells)]))
    assert (found and found.to_pylist()) == expected


def test_categories_are_read_as_what_they_name():
    column = pa.chunked_array([pa.array(["x", "y", "x"]).dictionary_encode()])
    assert strings(column).to_pylist() == ["x", "y", "x"]


@pytest.mark.parametrize(
    ("count", "seconds", "mebibytes"),
    [(100_003, 10, 200), pytest.param(1_000_003, 30, 900, marks=pytest.mark.slow)],
)
def test_a_long_table_opens_within_seconds_and_little_memory(tmp_path, count, seconds, mebibytes):
    path = tmp_path / "a.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write("photo,caption,age,label\n")
        for n in range(count):
            file.write(f'img/{n % 997}/{n}.jpg,"A sentence, number {n}",{n % 89},c{n % 7}\n')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    table = read_table(path)
    # Generous bounds: on two busy cores a million rows take 1 s and 220 MiB.
    assert time.perf_counter() - start < seconds
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < mebibytes
    assert table.num_rows == count
    assert table["caption"][count - 1].as_py() == f"A sentence, number {count - 1}"
