"""data=fsdd: the official split of spoken digits, from files."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

import datamodules.sets.fsdd as fsdd


@pytest.fixture
def recordings(tmp_path):
    """Two speakers, ten digits, recordings 0 … 6; the level tells the digit."""
    folder = tmp_path / "fsdd" / "recordings"
    folder.mkdir(parents=True)
    for digit in range(10):
        for speaker in ("ann", "bob"):
            for index in range(7):
                wave = np.full(11 + index, (digit + 1) / 16)
                soundfile.write(folder / f"{digit}_{speaker}_{index}.wav", wave, 8000)
    return folder


def split_ids(data):
    data.setup()
    return {name: set(split.source.ids) for name, split in data.splits.items()}


def test_recordings_zero_to_four_are_the_test_and_the_rest_is_shared(make_data, recordings):
    ids = split_ids(make_data("fsdd", modalities=["audio"]))
    everything = {path.name for path in recordings.glob("*.wav")}
    assert ids["test"] == {name for name in everything if int(name[-5]) < 5}
    assert ids["train"] | ids["val"] | ids["test"] == everything
    assert not ids["train"] & ids["val"]


def test_validation_has_every_digit_of_every_speaker(make_data, recordings):
    val = split_ids(make_data("fsdd", modalities=["audio"]))["val"]
    assert {name.rsplit("_", 1)[0] for name in val} == {
        f"{digit}_{speaker}" for digit in range(10) for speaker in ("ann", "bob")
    }


def test_validation_depends_on_the_split_seed_alone(make_data, recordings):
    first = split_ids(make_data("fsdd", modalities=["audio"]))
    assert split_ids(make_data("fsdd", modalities=["audio"], seed=5)) == first
    assert split_ids(make_data("fsdd", modalities=["audio"], split_seed=5)) != first


def test_waveforms_belong_to_their_labels(make_data, recordings):
    data = make_data("fsdd", modalities=["audio"], batch_size=7)
    for batch in data.test_dataloader():
        assert ((batch.inputs["audio"][:, 0] * 16).round().long() - 1).equal(
            batch.targets["target"]
        )
        assert [int(name[0]) for name in batch.ids] == batch.targets["target"].tolist()


def test_absent_recordings_name_the_command(make_data, tmp_path):
    data = make_data("fsdd", modalities=["audio"])
    command = rf"python train\.py data=fsdd data\.root={tmp_path}/fsdd data\.download=true"
    with pytest.raises(FileNotFoundError, match=command):
        data.setup()


def test_a_recording_that_is_cut_short_is_named(make_data, recordings):
    path = recordings / "3_ann_5.wav"
    path.write_bytes(path.read_bytes()[:-3])
    data = make_data("fsdd", modalities=["audio"])
    with pytest.raises(ValueError, match=r"3_ann_5\.wav: it is cut short"):
        [list(loader) for loader in (data.train_dataloader(), data.val_dataloader())]


def test_a_recording_with_another_name_is_refused(make_data, recordings):
    (recordings / "3_ann_5.wav").rename(recordings / "three.wav")
    with pytest.raises(ValueError, match=r"three\.wav is not named digit_speaker_index\.wav"):
        make_data("fsdd", modalities=["audio"]).setup()


@pytest.fixture
def served(recordings, tmp_path, monkeypatch):
    """The URLs that were asked for; each gives an archive of the recordings."""
    source = tmp_path / "free-spoken-digit-dataset-1.0.10"
    source.mkdir()
    recordings.rename(source / "recordings")
    archive = shutil.make_archive(str(tmp_path / "served"), "zip", tmp_path, source.name)
    calls = []

    def serve(url, path, **_):
        calls.append(url)
        return Path(shutil.copy(archive, path))

    monkeypatch.setattr(fsdd, "download", serve)
    monkeypatch.setattr(fsdd, "_CONTENT", fsdd.content_checksum(source / "recordings"))
    return calls


def test_download_fetches_and_unpacks_only_what_is_absent(make_data, served, tmp_path, capsys):
    data = make_data("fsdd", modalities=["audio"], download=True)
    data.prepare_data()
    data.prepare_data()
    assert len(served) == 1
    assert served[0].startswith("https://github.com/Jakobovski/")
    assert len(split_ids(data)["test"]) == 100
    assert "their publisher gives no checksum" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "fsdd").iterdir()}
    assert names == {"free-spoken-digit-dataset-1.0.10", ".download.lock"}


def test_other_recordings_than_those_of_the_version_are_not_kept(
    make_data, served, tmp_path, monkeypatch
):
    monkeypatch.setattr(fsdd, "_CONTENT", "0" * 64)
    data = make_data("fsdd", modalities=["audio"], download=True)
    with pytest.raises(OSError, match=r"does not hold the recordings of version 1\.0\.10"):
        data.prepare_data()
    assert data.found() is None
    assert {path.name for path in (tmp_path / "fsdd").iterdir()} == {".download.lock"}


def test_the_real_recordings_have_the_checksum(real_data):
    assert fsdd.content_checksum(real_data("fsdd") / "recordings") == fsdd._CONTENT


def test_nothing_is_fetched_unless_asked(make_data, monkeypatch):
    monkeypatch.setattr(fsdd, "download", pytest.fail)
    make_data("fsdd", modalities=["audio"]).prepare_data()


def test_the_real_recordings_split_as_published(make_data, real_data):
    data = make_data("fsdd", modalities=["audio"], root=str(real_data("fsdd")))
    ids = split_ids(data)
    assert {name: len(part) for name, part in ids.items()} == {
        "train": 2460,
        "val": 240,
        "test": 300,
    }
    batch = next(iter(data.test_dataloader()))
    assert batch.masks["audio"].shape == batch.inputs["audio"].shape
    assert batch.inputs["audio"].shape[1] <= 8000
    assert not batch.inputs["audio"][~batch.masks["audio"]].any()
