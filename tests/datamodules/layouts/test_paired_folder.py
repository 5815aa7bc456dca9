"""data=paired_folder: files of one name are one example."""

import pytest

from tests.tiny import write_picture, write_text, write_wav


@pytest.fixture
def make(make_data, tmp_path):
    def make(modalities=("image", "audio"), **options):
        return make_data(
            "paired_folder",
            modalities=list(modalities),
            root=str(tmp_path / "paired_folder"),
            image={"size": [5, 7]},
            audio={"sample_rate": 8000},
            **options,
        )

    return make


def crossings(wave):
    return int(((wave[:-1] <= 0) & (wave[1:] > 0)).sum())


def test_picture_and_sound_of_one_name_are_one_example(make, tiny_layout):
    tiny_layout("paired_folder")
    data = make()
    data.setup()
    assert data.class_names == ["dark", "light"]
    assert {n: len(s) for n, s in data.splits.items()} == {"train": 10, "val": 2, "test": 2}
    for split in data.splits.values():
        for index in range(len(split)):
            example = split[0, index]
            level = float(example.inputs["image"][0, 0, 0])
            number = int(example.id.split("/")[1])
            assert level == pytest.approx((50, 200)[example.targets["target"]] + number, abs=2)
            if number == 2:
                assert example.inputs["audio"] is None
            else:
                found = crossings(example.inputs["audio"])
                assert found == pytest.approx((13, 52)[example.targets["target"]], abs=2)


def test_folders_of_splits_are_used_if_there(make, tmp_path):
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        for label in ("cat", "dog"):
            for n in range(count):
                path = tmp_path / "paired_folder" / split / label / str(n)
                write_picture(path.with_suffix(".png"), 9)
                write_wav(path.with_suffix(".wav"), 0.1, 300)
                write_text(path.with_suffix(".txt"), "a text beside them")
    data = make(["image", "audio", "text"])
    data.setup()
    assert [len(split) for split in data.splits.values()] == [6, 4, 2]
    assert set(data.splits["test"].source.ids) == {"test/cat/0", "test/dog/0"}
    assert all(value is not None for value in data.splits["test"][0, 1].inputs.values())


def test_each_modality_may_have_a_folder_of_its_own(make, tmp_path):
    root = tmp_path / "paired_folder"
    for split, count in (("train", 5), ("test", 2)):
        for label in ("cat", "dog"):
            for n in range(count):
                write_picture(root / "image" / split / label / f"{n}.png", 9)
                write_wav(root / "audio" / split / label / f"{n}.wav", 0.1, 300)
    data = make()
    data.setup()
    assert [len(split) for split in data.splits.values()] == [8, 2, 4]
    assert not data.splits["train"].lacking.any()


def test_two_pictures_of_one_name_are_refused(make, tmp_path):
    for suffix in ("png", "jpg"):
        write_picture(tmp_path / "paired_folder" / "cat" / f"1.{suffix}", 9)
    with pytest.raises(ValueError, match=r"1\.jpg and .*1\.png are both the image of one example"):
        make().setup()


@pytest.mark.parametrize("place", [None, "loose.png", "train/cat/1.png"])
def test_another_layout_is_told_what_is_expected(make, tmp_path, place):
    if place:
        write_picture(tmp_path / "paired_folder" / place, 9)
    with pytest.raises(FileNotFoundError, match=r"must hold train/ and test/, or neither"):
        make().setup()
