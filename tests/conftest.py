"""What all tests share: no network, no accounts, tiny data sets, and the scripts as a user."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: test processes share the cores

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.configs import compose_config
from tests.tiny import LAYOUTS, write_wav

PROJECT = Path(__file__).parents[1]

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["WANDB_SILENT"] = "true"
os.environ["WANDB_ERROR_REPORTING"] = "false"


@pytest.fixture(autouse=True)
def _wandb_stays_in_the_test(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb"))


@pytest.fixture
def compose_run(tmp_path):
    """compose_run("data=fsdd", …) → the config of a run whose folder is inside tmp_path."""

    def make(*overrides, name="config"):
        return compose_config(name, (f"paths.run_dir={tmp_path}/run", *overrides))

    return make


@pytest.fixture
def run_script(tmp_path):
    """run_script("train.py", "seed=1", …) → the finished process, run as a user would."""

    def run(script, *arguments, status=0, timeout=300, **environment):
        done = subprocess.run(
            [sys.executable, str(PROJECT / script), *arguments],
            cwd=tmp_path,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == status, done.stdout[-3000:] + done.stderr[-6000:]
        return done

    return run


@pytest.fixture
def spoken_digits(tmp_path):
    """A folder laid out as the Free Spoken Digit Dataset: 10 digits × 2 speakers × 8 recordings."""
    root = tmp_path / "fsdd"
    root.mkdir()
    for digit in range(10):
        for speaker in ("ann", "bob"):
            for index in range(8):
                write_wav(root / f"{digit}_{speaker}_{index}.wav", 0.11, 200 + 100 * digit)
    return root


@pytest.fixture
def photographs(tmp_path):
    """A folder of 32×32 pictures in two splits and two classes."""
    root = tmp_path / "photographs"
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for index in range(5):
                pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return root


@pytest.fixture
def films(tmp_path):
    """A folder of short films with sound, in two splits and two classes."""
    pytest.importorskip("av", reason="films need the extra [video]")
    from tests.datamodules.clips import write_clip

    root = tmp_path / "films"
    for split in ("train", "test"):
        for label, pitch in (("cat", 400), ("dog", 800)):
            folder = root / split / label
            folder.mkdir(parents=True)
            for index in range(3):
                tone = 0.5 * np.sin(2 * np.pi * pitch * np.arange(8000) / 16000)
                write_clip(folder / f"{index}.mp4", frames=5, sound=tone)
    return root


@pytest.fixture
def sentences(tmp_path):
    """A folder of three files of labelled sentences."""
    root = tmp_path / "sentences"
    root.mkdir()
    for split in ("train", "dev", "test"):
        lines = [f"{'good' if n % 2 else 'bad'} film number {n}\t{n % 2}" for n in range(12)]
        (root / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


@pytest.fixture
def table_of_films(tmp_path):
    """A table of sixty rows: a picture, a clip, a sentence, two numbers and a class."""
    root = tmp_path / "films"
    (root / "stills").mkdir(parents=True)
    (root / "clips").mkdir()
    rows = ["still,clip,review,year,length,label"]
    for n in range(60):
        Image.new("RGB", (16, 12), (3 * n, 4 * n, 255 - 4 * n)).save(root / f"stills/{n}.png")
        write_wav(root / f"clips/{n}.wav", 0.11, 200 + 10 * n)
        names = f"stills/{n}.png,clips/{n}.wav"
        rows.append(f'{names},"a film, number {n}",{1950 + n % 7},{90 + n / 7},{"abc"[n % 3]}')
    (root / "films.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root / "films.csv"


@pytest.fixture
def table_of_columns(tmp_path):
    """A table of sixty rows: numbers, categories that may be called anything, dates and a class."""
    rows = ["name,price,age,colour,member,joined,label"]
    for n in range(60):
        colour = ["red", "${oc.env:HOME}", "???", "~/.ssh"][n // 3 % 4]
        day = f"2024-{n % 12 + 1:02}-{n % 28 + 1:02}"
        price = f'"${1000 + 17 * n % 97:,}"'
        rows.append(f"N{n},{price},{n % 7},{colour},{'x' * (n // 2 % 2)},{day},{'abc'[n % 3]}")
    (tmp_path / "columns.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path / "columns.csv"


@pytest.fixture
def tiny_layout(tmp_path):
    """tiny_layout("mnist") → the folder of a tiny copy, and the overrides that fit it."""

    def write(name):
        make, overrides = LAYOUTS[name]
        root = tmp_path / name
        make(root)
        return root, overrides

    return write
