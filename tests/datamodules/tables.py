"""A table of pictures, clips, sentences, numbers and labels, and what the tests make of it."""

import csv
import json

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from PIL import Image
from pyarrow import parquet

from datamodules.readers import READERS

WORDS = ["a fine film", "a dull film", "no film at all"]


def picture(path, level, size=(20, 28)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), level, dtype=np.uint8)).save(path)


def clip(path, level, rate=8000, seconds=0.1):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(seconds * rate), level / 256), rate)


def label(rows, values, name="label"):
    return [dict(row, **{name: value}) for row, value in zip(rows, values, strict=True)]


@pytest.fixture
def table(tmp_path):
    """table([{…}, …], "my.csv") writes rows as a table of that kind; returns its path."""

    def write(rows, name="my.csv"):
        path = tmp_path / name
        if path.suffix == ".parquet":
            parquet.write_table(pa.Table.from_pylist(rows), path)
        elif path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        else:
            with path.open("w", newline="", encoding="utf-8") as file:
                dialect = "excel-tab" if path.suffix == ".tsv" else "excel"
                writer = csv.DictWriter(file, list(rows[0]), dialect=dialect)
                writer.writeheader()
                writer.writerows(rows)
        return path

    return write


@pytest.fixture
def rows(tmp_path):
    """Sixty rows of picture, clip, sentence, two numbers and a label; the level tells the row."""
    rows = []
    for n in range(60):
        picture(tmp_path / "photos" / f"{n}.png", 4 * n)
        clip(tmp_path / "clips" / f"{n}.wav", 4 * n)
        rows.append(
            {
                "photo": f"photos/{n}.png",
                "clip": f"clips/{n}.wav",
                "remark": f"{WORDS[n % 3]}, number {n}",
                "age": 20 + n % 7,
                "height": 1.5 + n / 100,
                "label": ["cat", "dog", "eel"][n % 3],
            }
        )
    return rows


@pytest.fixture
def make_manifest(make_data):
    """make_manifest(path, **overrides) → the data module, set up."""

    def make(path, **overrides):
        path = path if isinstance(path, dict) else str(path)
        defaults = {"path": path, "modalities": None, "kinds": list(READERS)}
        data = make_data("manifest", **(defaults | overrides))
        data.setup()
        return data

    return make
