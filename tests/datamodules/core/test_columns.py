"""Columns: cells come one by one, what is absent is known, and no path leaves its folder."""

import os

import numpy as np
import pyarrow as pa
import pytest
import torch

from datamodules.core.columns import Files, Numbers, Tensors, Values


@pytest.fixture
def root(tmp_path):
    """A folder with files, a link to one of them, and links that lead out of it."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    (inside / "sub").mkdir(parents=True)
    outside.mkdir()
    for path in (inside / "a.png", inside / "sub" / "b.png", outside / "secret.png"):
        path.write_bytes(b"x")
    (inside / "near.png").symlink_to(inside / "a.png")
    (inside / "far.png").symlink_to(outside / "secret.png")
    (inside / "way").symlink_to(outside)
    return inside


@pytest.mark.parametrize("name", ["a.png", "sub/b.png", "./a.png", "near.png", "{root}/a.png"])
def test_files_inside_are_found(root, name):
    column = Files([name.format(root=root)], root=root)
    assert column[0].read_bytes() == b"x"
    assert column.problems() == {}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../outside/secret.png", r"climbs out of folders with '\.\.'"),
        ("sub/../a.png", r"'\.\.'"),
        ("..\\outside\\secret.png", r"'\.\.'"),
        ("far.png", "lies outside data.root="),
        ("way/secret.png", "lies outside data.root="),
        ("/etc/passwd", "lies outside data.root="),
        ("{root}-sibling/a.png", "lies outside data.root="),
    ],
)
def test_paths_that_leave_the_root_are_refused_before_and_when_they_are_read(root, name, reason):
    column = Files(["a.png", name.format(root=root)], root=root)
    problems = column.problems()
    assert set(problems) == {1}
    with pytest.raises(ValueError, match=reason) as refused:
        column[1]
    assert problems[1] == str(refused.value)
    assert "data.outside=true" in problems[1]


def test_paths_may_leave_the_root_if_that_is_allowed(root):
    names = ["../outside/secret.png", "far.png", "way/secret.png"]
    column = Files(names, root=root, outside=True)
    assert column.problems() == {}
    assert all(cell.read_bytes() == b"x" for cell in column)


def test_lost_files_are_found_without_opening_any(root):
    names = ["a.png", "sub/none.png", None, "none/a.png", "", "sub/b.png", "sub", "A.PNG"]
    problems = Files(names, root=root).problems()
    lost = {1, 3, 6} | (set() if (root / "A.PNG").exists() else {7})
    assert set(problems) == lost
    assert problems[1] == f"There is no file {root}/sub/none.png: replace or remove it."


def test_pipes_and_devices_are_no_files(root):
    os.mkfifo(root / "pipe.png")
    (root / "link.png").symlink_to("/dev/zero")
    names = ["pipe.png", "link.png", "/dev/zero", "a.png"]
    assert set(Files(names, root=root, outside=True).problems()) == {0, 1, 2}


def test_a_name_of_bytes_that_cannot_be_a_path_is_a_lost_file(root):
    assert set(Files(["a\0b.png"], root=root).problems()) == {0}


@pytest.mark.parametrize(
    ("column", "absent"),
    [
        (Values(["one", None, "", "four"]), [False, True, True, False]),
        (Values([b"one", None, b"", b"four"]), [False, True, True, False]),
        (Numbers([[1, np.nan], [np.nan] * 2, [2, 3]]), [False, True, False]),
        (Tensors(torch.zeros(3, 2)), [False] * 3),
        (Tensors([torch.zeros(2), None]), [False, True]),
        (Files(["a", None, ""], root="."), [False, True, True]),
    ],
)
def test_absent_cells_are_none(column, absent):
    assert column.absent().tolist() == absent
    assert [cell is None for cell in column] == absent
    taken = column.take(np.array([1, 0]))
    assert len(taken) == 2
    assert taken.absent().tolist() == [absent[1], absent[0]]


def test_content_is_read_from_the_structs_that_hugging_face_stores():
    cells = pa.array([{"bytes": b"x", "path": "a.png"}, {"bytes": None, "path": None}, None])
    column = Values(cells)
    assert list(column) == [b"x", None, None]


def test_emptied_cells_are_absent(root):
    column = Files(["a.png", "none.png", "sub/b.png"], root=root).without(np.array([1]))
    assert [cell and os.path.basename(cell) for cell in column] == ["a.png", None, "b.png"]


def test_cells_of_more_than_two_gibibytes_are_taken_without_copying_them():
    """As a dataset on the disk that is mapped into memory; here 34 times the same 64 MiB."""
    block = pa.array([bytes([n]) * 2**20 for n in range(64)], pa.binary())
    column = Values(pa.chunked_array([block] * 34))
    assert column.num_bytes().sum() == 34 * 2**26
    before = pa.total_allocated_bytes()
    some = column.take(np.arange(1, 34 * 64, 2)).take(np.array([0, 5, 1087]))
    assert not some.absent().any()
    wanted = [b"\1\1", b"\x0b\x0b", b"\x3f\x3f"]
    assert [cell[:2] for cell in some] == wanted
    assert pa.total_allocated_bytes() - before < 2**20
    assert [cell.as_py()[:2] for cell in some.array()] == wanted


def test_cells_of_several_chunks_in_any_order_are_those_cells():
    chunks = [["a", None], [], ["c", "d", "e"], ["f"]]
    column = Values(pa.chunked_array(chunks, pa.string()))
    assert list(column) == ["a", None, "c", "d", "e", "f"]
    some = column.take(np.array([5, 3, 2, 0, 1, 5]))
    assert list(some) == some.array().to_pylist() == ["f", "d", "c", "a", None, "f"]
    assert some.absent().tolist() == [False, False, False, False, True, False]
    assert list(some.take(np.array([4, 0]))) == [None, "f"]
    assert some.take(np.array([], int)).array().to_pylist() == []


@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize("some", [False, True])
def test_several_cells_are_those_that_come_one_by_one(chunks, some):
    texts = pa.chunked_array([pa.array(["a", None, "", "é", "b"])] * chunks)
    column = Values(texts)
    column = column.take(np.array([4, 3, 1, 0, 2])) if some else column
    assert column.cells([3, 0, 3]) == [column[3], column[0], column[3]]
    assert column.cells(range(1, 5)) == [column[index] for index in range(1, 5)]
    assert column.cells([]) == []


def test_several_files_are_refused_as_one_is(root):
    column = Files(["a.png", None, "far.png"], root=root)
    assert column.cells([1, 0]) == [None, root / "a.png"]
    with pytest.raises(ValueError, match="lies outside"):
        column.cells([0, 2])
