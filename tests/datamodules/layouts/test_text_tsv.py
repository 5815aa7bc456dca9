"""data=text_tsv: a sentence and a label a line, whatever the file's line ends."""

import pytest

from datamodules.layouts.text_tsv import read_rows

ROWS = "good film\tpos\nbad film\tneg\n"


@pytest.fixture
def write(tmp_path):
    """write(train=…, dev=…, test=…) puts the files where the default config looks."""

    def write(**files):
        folder = tmp_path / "text"
        folder.mkdir(exist_ok=True)
        for name, content in ({"train": ROWS, "dev": ROWS, "test": ROWS} | files).items():
            raw = content.encode() if isinstance(content, str) else content
            (folder / f"{name}.tsv").write_bytes(raw)
        return folder

    return write


@pytest.fixture
def make(make_data):
    def make(*, text=None, **overrides):
        text = {"tokenizer": "bytes"} | (text or {})
        return make_data("text_tsv", modalities=["text"], text=text, **overrides)

    return make


def read(path, *, header=False):
    return [column.to_pylist() for column in read_rows(path, header=header, errors="raise")]


def test_labels_become_indices_in_sorted_order(make, write):
    write()
    data = make()
    (batch,) = data.test_dataloader()
    assert data.class_names == ["neg", "pos"]
    assert batch.targets["target"].tolist() == [1, 0]
    assert batch.ids == ["test.tsv:1", "test.tsv:2"]
    assert bytes((batch.inputs["text"][1][:8] - 6).tolist()) == b"bad film"


def test_integer_labels_are_sorted_by_value(make, write):
    rows = "a\t10\nb\t9\n"
    write(train=rows, dev=rows, test=rows)
    data = make()
    data.setup()
    assert data.class_names == ["9", "10"]


def test_classes_may_be_given_in_an_order_of_ones_own(make, write):
    write()
    data = make(classes=["pos", "neg"])
    (batch,) = data.test_dataloader()
    assert batch.targets["target"].tolist() == [0, 1]


def test_val_tsv_serves_as_dev_tsv(make, write):
    folder = write()
    (folder / "dev.tsv").rename(folder / "val.tsv")
    make().setup()


@pytest.mark.parametrize(
    "raw",
    [b"a b\tx\nc\ty\n", b"\xef\xbb\xbfa b\tx\nc\ty\n", b"a b\tx\r\nc\ty\r\n", b"a b\tx\nc\ty"],
    ids=["plain", "byte order mark", "carriage returns", "no end of the last line"],
)
def test_line_ends_and_byte_order_marks_do_not_matter(tmp_path, raw):
    (tmp_path / "a.tsv").write_bytes(raw)
    assert read(tmp_path / "a.tsv") == [["a b", "c"], ["x", "y"]]


def test_line_separators_inside_a_line_are_text(tmp_path):
    (tmp_path / "a.tsv").write_bytes("a\u2028b\rc\tx\n".encode())
    assert read(tmp_path / "a.tsv") == [["a\u2028b\rc"], ["x"]]


@pytest.mark.parametrize("raw", [b"", b"text\tlabel\n"], ids=["no byte", "a header alone"])
def test_a_file_of_no_rows_has_none(tmp_path, raw):
    (tmp_path / "a.tsv").write_bytes(raw)
    assert read(tmp_path / "a.tsv", header=bool(raw)) == [[], []]


def test_a_header_is_skipped_and_lines_count_from_the_top(make, write):
    head = "text\tthe label\n"
    write(train=head + ROWS, dev=head + ROWS, test=head + ROWS)
    data = make(header=True)
    (batch,) = data.val_dataloader()
    assert batch.ids == ["dev.tsv:2", "dev.tsv:3"]
    assert data.class_names == ["neg", "pos"]


def test_below_a_header_a_bad_row_is_counted_from_the_top(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"text\nfine\tx\nodd\n")
    with pytest.raises(ValueError, match=r"a\.tsv, line 3 has 1 columns"):
        read(tmp_path / "a.tsv", header=True)


@pytest.mark.parametrize(("row", "count"), [("three\tcolumns\tpos", 3), ("one column", 1), ("", 1)])
def test_a_wrong_number_of_columns_is_named_with_file_and_line(make, write, row, count):
    write(dev=f"fine\tpos\n{row}\nfine\tneg\n")
    with pytest.raises(ValueError, match=rf"dev\.tsv, line 2 has {count} columns, expected 2"):
        make().setup()


def test_an_unknown_label_is_named_with_file_and_line(make, write):
    write(test="fine\tpos\nodd\tmeh\n")
    with pytest.raises(ValueError, match=r"test\.tsv:2: unknown label 'meh'.*\['neg', 'pos'"):
        make().setup()


def test_invalid_utf8_is_named_with_file_and_line(make, write):
    write(train=b"good\tpos\nb\xe4d\tneg\n")
    with pytest.raises(ValueError, match=r"train\.tsv, line 2 is not UTF-8.*errors=replace"):
        make().setup()


def test_invalid_utf8_is_replaced_if_asked(make, write):
    write(test=b"b\xe4d\tneg\n")
    (batch,) = make(text={"errors": "replace"}).test_dataloader()
    text = bytes(i - 6 for i in batch.inputs["text"][0].tolist() if i >= 6).decode()
    assert text == "b\ufffdd"


def test_a_text_of_zero_bytes_is_named(make, write):
    write(test="fine\tpos\n\tneg\n")
    with pytest.raises(ValueError, match=r"test\.tsv:2 has none of the modalities \['text'\]"):
        make().setup()


def test_an_absent_file_is_named_with_the_layout(make, write):
    (write() / "test.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"test\.tsv does not exist.*must hold train\.tsv"):
        make().setup()


def test_the_real_sentences_are_read(make, real_data):
    data = make(root=str(real_data("sst2")))
    data.setup()
    assert data.class_names == ["0", "1"]
    assert [len(split) for split in data.splits.values()] == [6920, 872, 1821]
