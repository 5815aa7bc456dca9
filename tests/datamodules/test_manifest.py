"""data=manifest: a table of the user's own, and what is inferred from it."""

import csv
import json

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch
from PIL import Image
from pyarrow import parquet

WORDS = ["a fine film", "a dull film", "no film at all"]


def picture(path, level, size=(20, 28)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), level, dtype=np.uint8)).save(path)


def clip(path, level, rate=8000, seconds=0.1):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(seconds * rate), level / 256), rate)


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
def make(make_data):
    def make(path, **overrides):
        data = make_data("manifest", path=str(path), modalities=None, **overrides)
        data.setup()
        return data

    return make


def examples(data):
    """id → example, of all splits."""
    return {
        example.id: example
        for split in data.splits.values()
        for example in (split[0, index] for index in range(len(split)))
    }


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_everything_is_inferred_from_a_table_of_any_kind(make, table, rows, suffix):
    data = make(table(rows, f"my.{suffix}"))
    assert data.modalities == ["image", "audio", "text", "array"]
    assert data.class_names == ["cat", "dog", "eel"]
    assert [len(split) for split in data.splits.values()] == [42, 6, 12]
    assert data.kinds["image"].size == (20, 28)
    assert (data.kinds["audio"].sample_rate, data.kinds["audio"].max_seconds) == (8000, 0.1)
    found = examples(data)
    assert set(found) == {f"my.{suffix}:{n + 1}" for n in range(60)}
    for n in range(60):
        example = found[f"my.{suffix}:{n + 1}"]
        assert example.target == n % 3
        level = example.inputs["image"][0, 0, 0]
        assert round(level.item()) == 4 * n
        assert round(example.inputs["audio"][0].item() * 256) == 4 * n
        text = bytes((example.inputs["text"] - 6).tolist()).decode()
        assert text == rows[n]["remark"]
        values = example.inputs["array"][:, 0] * torch.tensor(data.kinds["array"].std)
        values += torch.tensor(data.kinds["array"].mean)
        torch.testing.assert_close(values, torch.tensor([20.0 + n % 7, 1.5 + n / 100]))


def test_empty_cells_are_absent_modalities(make, table, rows):
    rows[7]["photo"] = rows[8]["clip"] = rows[9]["remark"] = ""
    rows[10]["age"] = ""
    rows[11]["age"] = rows[11]["height"] = "NA"
    data = make(table(rows))
    found = {name.split(":")[1]: example.inputs for name, example in examples(data).items()}
    assert found["8"]["image"] is found["9"]["audio"] is found["10"]["text"] is None
    assert found["12"]["array"] is None
    assert found["11"]["array"][:, 1].tolist() == [1.0, 0.0]
    assert found["11"]["array"][0, 0] == 0
