"""Files in folders named after their class: with splits, or without."""

import pytest

from datamodules.layouts.folder import walk
from tests.tiny import write_wav


@pytest.fixture
def recordings(make_data, tiny_layout, tmp_path):
    """The data module of seven low and seven high tones, without splits."""

    def make(**overrides):
        data = make_data("audio_folder", modalities=["audio"], root=root, **overrides)
        data.setup()
        return data

    root = str(tmp_path / "audio_folder")
    tiny_layout("audio_folder")
    return make


def crossings(example):
    """How often a tone of 0.13 s crosses zero upwards: its frequency × 0.13."""
    wave = example.inputs["audio"]
    return int(((wave[:-1] <= 0) & (wave[1:] > 0)).sum())


def test_recordings_carry_the_label_of_their_folder(recordings):
    data = recordings()
    assert data.class_names == ["high", "low"]
    for split in data.splits.values():
        for index in range(len(split)):
            example = split[0, index]
            assert (crossings(example) > 80) == (example.targets["target"] == 0)


def test_splits_that_are_not_there_are_made_for_every_class(recordings):
    data = recordings(val_share=0.2, test_share=0.4)
    sizes = {name: split.source.targets.bincount().tolist() for name, split in data.splits.items()}
    assert sizes == {"train": [3, 3], "val": [1, 1], "test": [3, 3]}
    ids = [set(split.source.ids) for split in data.splits.values()]
    assert len(set.union(*ids)) == 14
    assert "high/3.wav" in set.union(*ids)


def test_another_split_seed_makes_other_splits_and_another_seed_does_not(recordings):
    first = set(recordings().splits["test"].source.ids)
    assert set(recordings(seed=3).splits["test"].source.ids) == first
    assert set(recordings(split_seed=3).splits["test"].source.ids) != first


def test_folders_of_splits_are_used_if_there(make_data, tmp_path):
    root = tmp_path / "audio"
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        for pitch, label in ((300, "low"), (900, "high")):
            for n in range(count):
                write_wav(root / split / label / "deeper" / f"{n}.wav", 0.13, pitch)
            (root / split / label / ".hidden.wav").write_bytes(b"")
    data = make_data("audio_folder", modalities=["audio"])
    data.setup()
    assert [len(split) for split in data.splits.values()] == [6, 4, 2]
    assert data.splits["test"].source.ids[0] == "test/high/deeper/0.wav"


def test_a_test_without_train_names_what_is_not_there(make_data, tmp_path):
    write_wav(tmp_path / "audio" / "test" / "low" / "0.wav", 0.13, 300)
    with pytest.raises(FileNotFoundError, match=r"audio/train is not a folder: data\.root="):
        make_data("audio_folder", modalities=["audio"]).setup()


@pytest.mark.parametrize("link", ["high/far.wav", "far"])
def test_links_that_leave_the_root_are_refused_or_passed_over(recordings, tmp_path, link):
    recordings()
    write_wav(tmp_path / "elsewhere" / "far.wav", 0.13, 300)
    root = tmp_path / "audio_folder"
    target = tmp_path / "elsewhere"
    (root / link).symlink_to(target / "far.wav" if link.endswith("wav") else target)
    name = r"high/far\.wav" if link.endswith("wav") else r"far/far\.wav"
    refused = rf"{name}: The file .*{name} lies outside data\.root=.*data\.outside=true"
    with pytest.raises(ValueError, match=refused):
        recordings()
    skipping = recordings(on_error="skip", error_budget=0.2)
    assert [row["id"] for row in skipping.bad_examples.rows()] == [name.replace("\\", "")]
    allowed = recordings(outside=True)
    assert sum(map(len, allowed.splits.values())) == 15


def test_links_inside_the_root_are_followed(recordings, tmp_path):
    recordings()
    root = tmp_path / "audio_folder"
    (root / "high" / "near.wav").symlink_to(root / "high" / "3.wav")
    assert sum(map(len, recordings().splits.values())) == 15


def test_folders_that_link_to_each_other_end(tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        write_wav(tmp_path / name / "0.wav", 0.13, 300)
        (tmp_path / name / "link").symlink_to(tmp_path / other)
    found = ["0.wav", "link/0.wav"]
    assert walk(tmp_path / "a", {".wav"}) == found
    assert walk(tmp_path / "none", {".wav"}) == []
