"""data=av_digits: scans and recordings of the same digit, from the same side of the split."""

import numpy as np
import pytest
import soundfile
import torch

from datamodules.sets.av_digits import AVDigitsDataModule
from datamodules.sets.sklearn_digits import ScanDamage

MODALITIES = ["image", "audio"]


@pytest.fixture
def data(make_data, tmp_path):
    """Recordings whose level tells the digit and whose length tells their index."""
    folder = tmp_path / "fsdd"
    folder.mkdir()
    for digit in range(10):
        for index in range(23):
            wave = np.full(101 + index, (digit + 1) / 16)
            soundfile.write(folder / f"{digit}_ann_{index}.wav", wave, 8000)
    data = make_data("av_digits", modalities=MODALITIES)
    data.setup()
    return data


def index_of(example):
    return len(example.inputs["audio"]) - 101


def test_scan_and_recording_are_of_one_digit(data):
    for split in data.splits.values():
        for index in range(0, len(split), 7):
            example = split[0, index]
            assert round(example.inputs["audio"][0].item() * 16) - 1 == example.targets["target"]


def test_scans_are_undegraded(data):
    split = data.splits["train"]
    assert torch.equal(
        split[0, 5].inputs["image"][0], torch.from_numpy(split.source.scans.pixels[5])
    )


def test_test_scans_meet_test_recordings_and_train_scans_the_others(data):
    heard = {
        name: {index_of(split[0, index]) for index in range(len(split))}
        for name, split in data.splits.items()
    }
    assert heard["test"] == set(range(5))
    assert heard["train"] | heard["val"] == set(range(5, 23))
    train, val = (set(data.splits[name].source.recordings.ids) for name in ("train", "val"))
    assert not train & val


def test_training_pairs_change_with_the_epoch_and_the_others_never(data):
    def pairs(name, epoch):
        return [index_of(data.splits[name][epoch, index]) for index in range(31)]

    assert pairs("train", 0) == pairs("train", 0)
    assert pairs("train", 0) != pairs("train", 1)
    assert pairs("test", 0) == pairs("test", 1)


def test_scans_stay_as_they_are_where_no_degradation_is_given():
    data = AVDigitsDataModule(
        root=".", modalities=["image"], batch_size=2, image={"channels": 1, "size": [8, 8]}
    )
    assert data.damage == ScanDamage(noise=(0.0, 0.0), patch=(0, 0))


def test_a_digit_without_recordings_is_named(data, tmp_path):
    for path in (tmp_path / "fsdd").glob("4_*.wav"):
        path.unlink()
    with pytest.raises(ValueError, match="No recording of the digit 4"):
        data.build()


def test_absent_recordings_name_the_command(make_data):
    with pytest.raises(FileNotFoundError, match=r"python train\.py data=av_digits data\.root="):
        make_data("av_digits", modalities=MODALITIES).setup()
