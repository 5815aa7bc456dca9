"""Files that are damaged, or made to harm, are refused in a sentence before they take memory."""

import json
import os
import resource
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from hydra.errors import InstantiationException
from PIL import Image

from datamodules.layouts.table import read_table, refuse_inflated
from datamodules.layouts.target_columns import _several
from datamodules.readers.audio import AudioReader, read_audio
from datamodules.readers.image import ImageReader, read_image
from datamodules.readers.json_text import DEEPEST, is_deep, load_json
from tests.datamodules.sentences import shards


def nested(depth, opening="["):
    closing = {"[": "]", '{"a":': "}"}[opening]
    return opening * depth + "1" + closing * depth


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_json_may_be_nested_so_deep_and_no_deeper(opening):
    assert load_json(nested(DEEPEST, opening))
    for depth in (DEEPEST + 1, 20_011):
        with pytest.raises(ValueError, match="nested more than 64 deep"):
            load_json(nested(depth, opening))
    assert is_deep(b"[" * 200_000)


def test_brackets_in_texts_and_beside_each_other_are_no_nesting():
    told = {"text": "[" * 1009 + '\\"{"' * 107, "list": [[n] for n in range(1009)]}
    assert load_json(json.dumps(told)) == told


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_a_table_that_is_nested_too_deep_is_named(tmp_path, name):
    row = f'{{"text": "a", "label": {nested(20_011)}}}'
    path = tmp_path / name
    path.write_text(f'{{"text": "a", "label": 1}}\n{row}\n' if name[-1] == "l" else f"[{row}]")
    with pytest.raises(ValueError, match=f"{name}.* more than 64 deep"):
        read_table(path)


def test_a_label_that_is_nested_too_deep_is_text():
    assert _several("[" * 20_011, None) == []
    assert _several('["a", "b"]', None) == ["a", "b"]


def test_a_description_of_shards_that_is_nested_too_deep_is_refused(packed, tmp_path):
    (tmp_path / "dataset.json").write_text(f'{{"version": {nested(20_011)}}}')
    with pytest.raises(ValueError, match=r"dataset\.json describes no shards: .* 64 deep"):
        shards(str(tmp_path)).setup()


def test_a_compressed_parquet_file_is_measured_as_it_will_be(tmp_path):
    texts = ["x" * 100_003] * 997  # stored once
    numbers = np.zeros(1_000_003)
    for name, column, size in (("a", texts, 100_003 * 997), ("b", numbers, 8 * 1_000_003)):
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"column": column}), path, compression="zstd")
        assert path.stat().st_size < size / 50
        refuse_inflated(path, where="it", most=2 * size)
        for source in (path, pa.py_buffer(path.read_bytes())):
            with pytest.raises(ValueError, match=r"it takes 0 GiB in memory, more than"):
                refuse_inflated(source, where="it", most=size // 2)
    assert read_table(tmp_path / "a.parquet").num_rows == 997


def test_an_empty_list_of_sentences_is_named_itself(make_data, tmp_path):
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.tsv").write_text("a text\t1\n" if name != "train" else "")
    with pytest.raises(ValueError, match=r"train\.tsv has no rows"):
        make_data("text_tsv", modalities=["text"], root=str(tmp_path)).setup()


def write_float_wav(path, rate, samples):
    soundfile.write(path, np.zeros(samples, np.float32), 16_000, subtype="FLOAT")
    content = bytearray(path.read_bytes())
    content[24:28] = struct.pack("<I", rate)
    path.write_bytes(content)


@pytest.mark.parametrize("rate", [768_001, 67_108_864])
def test_sound_of_an_absurd_rate_is_refused(tmp_path, rate):
    path = tmp_path / "a.wav"
    write_float_wav(path, rate, 1511)
    reader = AudioReader(sample_rate=16_000, max_seconds=2.0)
    with pytest.raises(ValueError, match=rf"a\.wav: {rate:,} samples a second.*max_rate=768000"):
        read_audio(path, reader)


def test_sound_of_an_odd_rate_takes_little_memory(tmp_path):
    path = tmp_path / "a.wav"
    rate = 7_919
    tone = np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate).astype(np.float32)
    soundfile.write(path, tone, rate, subtype="FLOAT")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = read_audio(path, AudioReader(sample_rate=16_000, max_seconds=2.0))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17  # KiB
    expected = torch.sin(2 * torch.pi * 440 * torch.arange(len(found)) / 16_000)
    assert len(found) == pytest.approx(32_000, abs=2)
    torch.testing.assert_close(found[500:-500], expected[500:-500], atol=5e-3, rtol=0)


@pytest.mark.parametrize(("resize", "limit"), [("keep", 2**25), (True, 89_478_485)])
def test_pictures_have_a_limit_of_pixels_of_their_own(tmp_path, monkeypatch, resize, limit):
    path = tmp_path / "a.png"
    Image.new("1", (101, 103)).save(path)
    options = {"channels": 1, "size": (8, 8), "resize": resize}
    assert ImageReader(**options).most_pixels == limit
    read_image(path, ImageReader(**options, max_pixels=101 * 103))
    with pytest.raises(ValueError, match=r"103 × 101 pixels .* 10,402 pixels, data\.image\.max_"):
        read_image(path, ImageReader(**options, max_pixels=101 * 103 - 1))


def test_more_workers_than_a_machine_can_have_are_refused(make_data):
    most = max(64, 4 * os.cpu_count())
    with pytest.raises(InstantiationException, match=rf"={most + 1} is more than {most}"):
        make_data("digits", modalities=["text"], num_workers=most + 1)
    make_data("digits", modalities=["text"], num_workers=most)
