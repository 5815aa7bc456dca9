"""How long examples are, known without decoding them."""

import numpy as np
import pytest
import torch

from datamodules.core.cached_columns import cache_in_memory
from datamodules.core.columns import Files, Tensors, Values
from datamodules.core.dataset import Source, Split
from datamodules.readers.audio import AudioReader
from datamodules.readers.image import ImageReader
from datamodules.readers.text import TextReader
from tests.conftest import write_wav

AUDIO = AudioReader(sample_rate=4000, max_seconds=0.1)
TEXT = TextReader(max_length=7)


@pytest.fixture
def sounds(tmp_path):
    for name, seconds, rate in (("a", 0.05, 8000), ("b", 0.07, 4000), ("c", 0.3, 8000)):
        write_wav(tmp_path / f"{name}.wav", seconds, 300, rate)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    return Files(["a.wav", "b.wav", None, "c.wav", "broken.wav"], root=tmp_path)


def source(**columns):
    count = len(next(iter(columns.values())))
    return Source(targets=[0] * count, ids=[str(i) for i in range(count)], columns=columns)


def test_sounds_are_as_long_as_their_headers_say_at_the_rate_that_is_read(sounds):
    assert sounds.lengths(AUDIO).tolist() == [200, 280, 0, 400, 0]


def test_decoded_sounds_are_as_long_as_they_are(sounds):
    kept = source(audio=sounds.take(np.array([0, 1, 2, 3])))
    cached = cache_in_memory(kept, readers={"audio": AUDIO})
    assert cached.columns["audio"].lengths(AUDIO).tolist() == [200, 280, 0, 400]


def test_texts_are_as_long_as_their_bytes_inline_or_in_files(tmp_path):
    (tmp_path / "a.txt").write_text("één", encoding="utf-8")
    inline = Values(["één", "", "a long text", None])
    assert inline.lengths(TEXT).tolist() == [5, 0, 7, 0]
    assert Files(["a.txt"], root=tmp_path).lengths(TEXT).tolist() == [5]


def test_pictures_of_one_size_have_no_lengths():
    pictures = Values([b"any", b"thing"])
    assert pictures.lengths(ImageReader(channels=1, size=(2, 3))) is None


def test_modalities_count_in_units_of_their_means_and_not_where_they_lack(sounds):
    split = Split(
        source(audio=sounds.take(np.array([0, 1])), text=Values(["abc", "a"])),
        modalities=["audio", "text"],
        lacking=np.array([[False, False], [True, False]]),
        training=True,
        seed=0,
        readers={"audio": AUDIO, "text": TEXT},
    )
    assert split.lengths().tolist() == pytest.approx([200 / 100 + 3 / 2, 0 + 1 / 2])


def test_tensors_are_as_long_as_they_are_and_of_one_size_have_no_lengths():
    assert Tensors([torch.zeros(3), None, torch.zeros(5)]).lengths(AUDIO).tolist() == [3, 0, 5]
    assert Tensors([torch.zeros(3), None, torch.zeros(3)]).lengths(AUDIO) is None
    assert Tensors([None, None]).lengths(AUDIO) is None
    assert Tensors(torch.zeros(7, 3)).lengths(AUDIO) is None
