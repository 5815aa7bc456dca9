"""A table of real photographs, recordings and sentences, with holes and broken files, trains."""

import csv
import json
import random
import re
import shutil
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
DIGITS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
HOLES, BROKEN = 0.1, 0.02


@pytest.fixture(scope="module")
def real_table(tmp_path_factory):
    """600 rows of the shared data; returns the table and the ids of its broken files.

    A file is truncated, emptied, replaced by text, or gone: in copies, the originals stay.
    """
    shared = PROJECT.parent / "shared" / "data"
    needed = [shared / name for name in ("cifar10/train", "fsdd/recordings", "sst2/train.tsv")]
    for path in needed:
        if not path.exists():
            pytest.skip(f"needs {path.relative_to(shared)} in ../shared/data")
    root, draw = tmp_path_factory.mktemp("own"), random.Random(0)
    lines = needed[2].read_text(encoding="utf-8").splitlines()
    sentences = [line.split("\t")[0] for line in lines]
    rows = []
    for digit, name in enumerate(DIGITS):
        photos = sorted((needed[0] / name).iterdir())[:60]
        clips = sorted(needed[1].glob(f"{digit}_*.wav"))
        for photo in photos:
            row = {"photo": photo, "clip": draw.choice(clips), "remark": draw.choice(sentences)}
            rows.append(row | {"label": name})
    draw.shuffle(rows)
    broken = {}
    for number, row in enumerate(rows):
        row["name"] = f"example-{number}"
        for column in ("photo", "clip"):
            source = row[column]
            row[column] = f"{column}s/{number}{source.suffix}"
            target = root / row[column]
            target.parent.mkdir(exist_ok=True)
            shutil.copy(source, target)
        if draw.random() < HOLES:
            row[draw.choice(["photo", "clip", "remark"])] = ""
    for number in draw.sample(range(len(rows)), round(BROKEN * len(rows))):
        column = "photo" if rows[number]["photo"] else "clip"
        path = root / rows[number][column]
        how = ("truncated", "empty", "text", "gone")[len(broken) % 4]
        if how == "gone":
            path.unlink()
        elif how == "text":
            path.write_text("<html>404 not found</html>")
        else:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 * (how == "truncated")])
        broken[rows[number]["name"]] = (column, path)
    with (root / "my.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["name", "photo", "clip", "remark", "label"])
        writer.writeheader()
        writer.writerows(rows)
    return root / "my.csv", broken


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_real_data_with_holes_and_broken_files_trains_and_names_them_all(
    real_table, run_script, tmp_path, processes
):
    table, broken = real_table
    run_script(
        "train.py",
        "data=manifest",
        f"data.path={table}",
        "data.id=name",
        "data.on_error=skip",
        "data.cache_gib=0",
        "data.num_workers=2",
        "trainer.max_epochs=2",
        f"hydra.run.dir={tmp_path}/run",
        *(["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"] * (processes - 1)),
        OMP_NUM_THREADS="1",
        timeout=580,
    )
    with (tmp_path / "run" / "bad_examples.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = {row["id"]: (row["modality"], Path(row["file"]).name) for row in rows}
    assert len(rows) == len(found), "each is named once"
    kinds = {"photo": "image", "clip": "audio"}
    assert found == {id: (kinds[column], path.name) for id, (column, path) in broken.items()}
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["broken_examples"] == len(broken) == 12
    assert results["test/acc"] > 0.15, "ten classes: chance is 0.1"
    assert "test/acc/image+audio" in results


@pytest.mark.slow
@pytest.mark.parametrize("cache", [0, 1])
def test_more_broken_files_than_the_budget_end_the_run_with_a_sentence(
    real_table, run_script, tmp_path, cache
):
    table, broken = real_table
    run = ["data=manifest", f"data.path={table}", "data.id=name", f"data.cache_gib={cache}"]
    budget = ["data.on_error=skip", "data.error_budget=0.01", "data.num_workers=1"]
    done = run_script("train.py", *run, *budget, status=1, timeout=580)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert re.search(r"7 of 600 examples are broken, more than data\.error_budget=0\.01", line)
    assert "Traceback" not in done.stderr
    done = run_script("train.py", *run, status=1, timeout=580)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert any(str(path) in line for _, path in broken.values())
