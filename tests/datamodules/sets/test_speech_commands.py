"""data=speech_commands: the splits of its own lists, and no noise."""

import hashlib
import shutil
from pathlib import Path

import pytest

import datamodules.sets.speech_commands as speech_commands


@pytest.fixture
def make(make_data):
    return lambda **options: make_data(
        "speech_commands", modalities=["audio"], num_classes=2, **options
    )


def test_clips_are_where_the_lists_put_them(make, tiny_layout):
    tiny_layout("speech_commands")
    data = make()
    data.setup()
    assert data.class_names == ["no", "yes"]
    speakers = {
        name: {id.split("/")[1][:8] for id in split.source.ids}
        for name, split in data.splits.items()
    }
    assert speakers == {
        "train": {"speaker3", "speaker4", "speaker5"},
        "val": {"speaker2"},
        "test": {"speaker0", "speaker1"},
    }
    for split in data.splits.values():
        assert split.source.targets.tolist() == [id[0] == "y" for id in split.source.ids]


def test_absent_clips_name_the_command(make):
    with pytest.raises(FileNotFoundError, match=r"data=speech_commands data\.root=.*=true"):
        make().setup()


def test_download_checks_and_unpacks_the_archive(make, tiny_layout, tmp_path, monkeypatch):
    root, _ = tiny_layout("speech_commands")
    archive = shutil.make_archive(str(tmp_path / "served"), "gztar", root)
    shutil.rmtree(root)
    calls = []

    def serve(url, path, *, checksum):
        calls.append((url.rpartition("/")[2], checksum[:14]))
        return Path(shutil.copy(archive, path))

    monkeypatch.setattr(speech_commands, "download", serve)
    data = make(download=True)
    data.prepare_data()
    data.prepare_data()
    data.setup()
    assert calls == [("speech_commands_v0.02.tar.gz", "sha256:af14739")]
    assert len(data.splits["test"]) == 4
    assert not list(root.glob("*.tar.gz"))


def test_the_checksum_is_the_one_that_torchaudio_knows():
    from torchaudio.datasets.speechcommands import _CHECKSUMS

    known = {url.rpartition("/")[2]: value for url, value in _CHECKSUMS.items()}
    name = speech_commands._ARCHIVE.rpartition("/")[2]
    assert f"sha256:{known[name]}" == speech_commands._CHECKSUM
    assert len(known[name]) == hashlib.sha256().digest_size * 2
