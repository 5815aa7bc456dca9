"""CachedSource: what is kept decoded is what would be decoded each time."""

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from datamodules.cache import CachedSource, decoded_bytes
from datamodules.columns import Files, Numbers, Values
from datamodules.readers import KINDS
from datamodules.rows import RowsSource


@pytest.fixture
def source(tmp_path):
    """Eleven rows of pictures and clips of sizes and lengths of their own; some cells are empty."""
    random = np.random.default_rng(0)
    for n in range(11):
        pixels = random.integers(0, 256, (5 + n, 17 - n, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{n}.png")
        soundfile.write(tmp_path / f"{n}.wav", random.uniform(-0.5, 0.5, 101 + n), 8000)
    columns = {
        "image": Files([None if n == 3 else f"{n}.png" for n in range(11)], root=tmp_path),
        "audio": Files([None if n == 7 else f"{n}.wav" for n in range(11)], root=tmp_path),
        "text": Values([f"film {n}" for n in range(11)]),
        "array": Numbers(random.normal(size=(11, 2))),
    }
    return RowsSource(columns, targets=[n % 2 for n in range(11)], ids=[str(n) for n in range(11)])


@pytest.mark.parametrize("resize", [True, "fit"])
def test_cells_are_as_they_would_be_decoded_and_what_is_cheap_stays(source, resize):
    kinds = {
        "image": KINDS["image"](channels=3, size=[13, 11], resize=resize),
        "audio": KINDS["audio"](sample_rate=8000, max_seconds=1.0),
        "text": KINDS["text"](max_length=9),
        "array": KINDS["array"](length=2, mean=[0.0] * 2, std=[1.0] * 2),
    }
    cached = CachedSource(source, kinds=kinds)
    for index in range(11):
        plain, kept = source.cells(index), cached.cells(index)
        assert kept["text"] == plain["text"]
        assert np.array_equal(kept["array"], plain["array"])
        for name in ("image", "audio"):
            if plain[name] is None:
                assert kept[name] is None
            else:
                assert torch.equal(kept[name], kinds[name].decode(plain[name], where=""))
    assert cached.absent("image").tolist() == [n == 3 for n in range(11)]
    assert cached.lengths("audio", kinds["audio"]).tolist() == [
        0 if n == 7 else 101 + n for n in range(11)
    ]


def test_size_in_memory_is_bytes_for_pixels_and_floats_for_samples(source):
    image = KINDS["image"](channels=3, size=[13, 11])
    audio = KINDS["audio"](sample_rate=8000, max_seconds=0.5)
    assert decoded_bytes([source], {"image": image}) == 11 * 3 * 13 * 11
    assert decoded_bytes([source, source], {"audio": audio}) == 22 * 4000 * 4
    assert decoded_bytes([source], {"text": KINDS["text"](max_length=9)}) == 0
