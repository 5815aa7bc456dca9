"""data=audioset: lists of clips with several labels each."""

import pytest
from hydra.errors import InstantiationException

from datamodules.layouts.audioset import read_segments
from tests.tiny import write_wav


@pytest.fixture
def make(make_data):
    return lambda **options: make_data("audioset", modalities=["audio"], **options)


def test_clips_carry_all_their_labels_in_the_order_of_the_list_of_names(make, tiny_layout):
    tiny_layout("audioset")
    data = make()
    data.setup()
    assert data.class_names == ["Speech", "Music, loud", "Bark"]
    assert [len(split) for split in data.splits.values()] == [11, 1, 4]
    for split in data.splits.values():
        for index, id in enumerate(split.source.ids):
            count = int(id[3:5]) % 3 + 1
            assert split.source.targets[index].tolist() == [1] * count + [0] * (3 - count)


def test_clips_that_are_not_there_are_counted(make, tiny_layout):
    tiny_layout("audioset")
    lines = make().summary()
    assert any("1 of 17 clips are not in" in line for line in lines)


def test_no_clip_at_all_is_an_error(make, tiny_layout):
    tiny_layout("audioset")
    with pytest.raises(FileNotFoundError, match=r"None of the 17 clips that balanced_train"):
        make(clips="elsewhere").setup()


@pytest.mark.parametrize(
    "name", ["a_b", "Ya_b", "a_b_30", "a_b_30.000", "a_b_30000", "Ya_b_30.000_40.000"]
)
def test_a_clip_may_be_named_in_any_of_the_usual_ways(make, tmp_path, name):
    root = tmp_path / "audioset"
    write_wav(root / "audio" / "deep" / f"{name}.wav", 0.13, 300)
    write_wav(root / "audio" / "other.wav", 0.13, 300)
    line = 'a_b, 30.000, 40.000, "x"\n'
    (root / "t.csv").write_text(line + 'other, 0.000, 10.000, "x,y"\n')
    (root / "e.csv").write_text(line)
    data = make(segments={"train": "t.csv", "val": "e.csv", "test": "e.csv"})
    data.setup()
    assert list(data.splits["test"].source.ids) == [f"deep/{name}.wav"]
    assert data.class_names == ["x", "y"]


def test_labels_and_times_are_read_past_comments_and_marks(tmp_path):
    path = tmp_path / "list.csv"
    path.write_bytes(b'\xef\xbb\xbf# a, comment\r\n--x, 3.500, 13.500, "/m/a,/m/b"\r\n\r\n')
    assert read_segments(path) == [("--x", 3.5, 13.5, ["/m/a", "/m/b"])]


@pytest.mark.parametrize("line", ["a, 1, 2", 'a, one, 2, "x"', "a, 1, 2, x, y"])
def test_a_line_of_another_form_is_named(tmp_path, line):
    (tmp_path / "list.csv").write_text(f"# comment\n{line}\n")
    with pytest.raises(ValueError, match=r"list\.csv, line 2 is not id, start, end"):
        read_segments(tmp_path / "list.csv")


def test_an_absent_list_is_named(make):
    with pytest.raises(FileNotFoundError, match=r"no list .*balanced_train_segments\.csv"):
        make().setup()


def test_a_test_without_a_list_is_refused(make):
    with pytest.raises(InstantiationException, match=r"data\.segments names \['train'\]"):
        make(segments={"test": None})
