"""The GPU's measurements, rehearsed on a CPU."""

from __future__ import annotations

import json

import pytest

from benchmarks import gpu, page
from benchmarks.tables import plain


def test_the_rehearsal_measures_every_section_without_a_failure(tmp_path, capsys):
    gpu.main(["--device", "cpu", "--quick", "--json", str(tmp_path / "gpu.json")])
    told = json.loads((tmp_path / "gpu.json").read_text())
    results = told["sections"]
    assert len(results) == 4
    for rows in results.values():
        assert rows
        assert not [row for row in rows if "failed" in row]
    crosses = results["First cross-attend"]
    assert {row["form"] for row in crosses} == {"sdpa", "folded", "separable"}
    errors = [row["error"] for row in crosses if row["precision"] == "fp32" and "error" in row]
    assert errors
    assert max(errors) < 1e-5
    steps = results["ImageNet training step, bf16"]
    assert all(row["examples_per_second"] * row["train_seconds"] > 1 for row in steps)
    assert "## First cross-attend" in capsys.readouterr().out
    told["machine"] |= {"device": "cuda", "accelerator": "a GPU"}
    (large,) = [row for row in steps if row["name"] == "imagenet_8x6"]
    written = page.write_page([told], tmp_path).read_text()
    assert f"| ≥ 60 % | {100 * large['dense_utilisation']:.3g} % |" in written
    assert "### First cross-attend" in written


def test_what_fails_or_comes_too_late_is_a_row_that_says_so():
    machine = gpu.Machine("cpu", is_quick=True, deadline=float("inf"))

    def fail():
        raise RuntimeError("out of memory\nby far")

    row = gpu._attempt(machine, fail)
    assert row == {"failed": "RuntimeError: out of memory"}
    late = gpu.Machine("cpu", is_quick=True, deadline=0.0)
    assert gpu._attempt(late, fail) == {"failed": "out of time"}
    assert "| out of time |" in plain(
        [{"way": "eager"}, {"way": "compiled"} | {"failed": "out of time"}]
    )


def test_without_a_gpu_one_line_says_how_to_rehearse(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "--device cpu --quick" in capsys.readouterr().err
