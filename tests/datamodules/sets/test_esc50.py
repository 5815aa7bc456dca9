"""data=esc50: one fold is the test, one validation."""

import shutil
from pathlib import Path

import pytest
from hydra.errors import InstantiationException

import datamodules.sets.esc50 as esc50


@pytest.fixture
def make(make_data):
    return lambda **options: make_data("esc50", modalities=["audio"], num_classes=3, **options)


@pytest.mark.parametrize(
    ("options", "val", "test"),
    [({}, 2, 1), ({"fold": 5}, 1, 5), ({"fold": 3, "val_fold": 1}, 1, 3)],
)
def test_folds_are_splits(make, tiny_layout, options, val, test):
    tiny_layout("esc50")
    data = make(**options)
    data.setup()
    folds = {n: {int(id[6]) for id in s.source.ids} for n, s in data.splits.items()}
    assert folds == {"train": {1, 2, 3, 4, 5} - {val, test}, "val": {val}, "test": {test}}
    assert data.class_names == ["dog", "rain", "siren"]
    for split in data.splits.values():
        assert split.source.targets.tolist() == [int(id[-5]) for id in split.source.ids]


@pytest.mark.parametrize("options", [{"fold": 0}, {"fold": 6}, {"fold": 2, "val_fold": 2}])
def test_folds_that_are_none_are_refused(make, options):
    with pytest.raises(InstantiationException, match=r"data\.fold=.*expected two of 1 to 5"):
        make(**options)


def test_a_table_without_folds_is_named(make, tiny_layout):
    root, _ = tiny_layout("esc50")
    (root / "meta" / "esc50.csv").write_text("filename,category\n1.wav,dog\n")
    with pytest.raises(ValueError, match=r"esc50\.csv has no column fold"):
        make().setup()


def test_a_lost_recording_is_named(make, tiny_layout):
    root, _ = tiny_layout("esc50")
    (root / "audio" / "3-100-A-1.wav").unlink()
    with pytest.raises(ValueError, match=r"There is no file .*3-100-A-1\.wav"):
        make().setup()


def test_absent_files_name_the_command(make):
    with pytest.raises(FileNotFoundError, match=r"data=esc50 data\.root=.*=true"):
        make().setup()


def test_download_asks_for_one_commit_and_its_checksum(make, tiny_layout, tmp_path, monkeypatch):
    root, _ = tiny_layout("esc50")
    packed = tmp_path / f"ESC-50-{esc50._COMMIT}"
    root.rename(packed)
    archive = shutil.make_archive(str(tmp_path / "served"), "zip", tmp_path, packed.name)
    asked = []

    def serve(url, path, *, checksum):
        asked.append((url, checksum))
        return Path(shutil.copy(archive, path))

    monkeypatch.setattr(esc50, "download", serve)
    data = make(download=True)
    data.prepare_data()
    data.setup()
    ((url, checksum),) = asked
    assert url.endswith(f"/{esc50._COMMIT}.zip")
    assert checksum.startswith("sha256:")
    assert not (root / "esc50.zip").exists()
