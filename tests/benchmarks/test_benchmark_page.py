"""The page and its bars, from results with round numbers."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks import page
from benchmarks.bars import BARS, evaluate, roofline, shortfall
from benchmarks.configurations import CONFIGURATIONS
from benchmarks.contestants import PROJECT
from benchmarks.machine import RESULTS
from benchmarks.tables import comparison, spread, table, utilisation


def reached(results, words):
    (bar,) = [bar for bar in BARS if all(word in bar.what for word in words)]
    return bar, *evaluate(bar, results)


def test_a_speedup_is_over_the_fastest_peer_and_bounded_by_the_peak(results):
    bar, value, products, operators, roof = reached(results, ["qk = v = 261", "fast"])
    assert value == pytest.approx(2.0)  # 2 s of the faster peer over 1 s
    assert (products, operators) == (pytest.approx(2.0 / 0.5), pytest.approx(2.0 / 0.8))
    assert roof == pytest.approx(2.0 * 1e10 / 1.5e9)
    assert not bar.is_met(value)


def test_half_precision_is_compared_with_the_fastest_peer_in_full_precision(results):
    bar, value, *alone, roof = reached(results, ["text bytes", ", bf16-mixed:"])
    assert value == pytest.approx(5.0)
    assert alone == [None, None]  # they were not measured
    assert roof == pytest.approx(2.0 * 4e10 / 1.5e9)
    assert bar.is_met(value)


def test_memory_is_a_part_of_the_leanest_peers(results):
    bar, value, *_ = reached(results, ["qk = v = 261", "memory"])
    assert value == pytest.approx(100 * 50 / 400)
    assert not bar.is_met(value)
    assert bar.is_met(100 / 16)


def test_the_roof_of_the_latents_is_the_rate_of_layers_in_a_row(results):
    bar, *values = reached(results, ["latent layers alone"])
    assert values == pytest.approx([30, 30 / 0.5, 30 / 0.8, 90])
    assert not bar.is_met(values[0])


def test_a_compiled_step_is_compared_with_compiled_peers_as_well(results):
    found = results["peers"]["configurations"]["bytes"]["contestants"]
    found["ours+compile"], found["hf+compile"] = found["ours+bf16-mixed"], found["ours"]
    assert reached(results, ["language model, compile:"])[1] == pytest.approx(1.0 / 0.4)
    assert reached(results, ["language model: training step, times"])[1] == pytest.approx(2.0)


def test_accuracy_in_half_precision_may_be_an_example_less(results):
    bar, value, *_ = reached(results, ["bf16-mixed", "accuracy"])
    assert value == pytest.approx(50 - 25)  # of the first seed, which both have
    assert not bar.is_met(value)
    assert bar.is_met(100 / 359)


def test_exponents_and_the_million_come_from_the_scaling_curves(results):
    assert reached(results, ["time", "exponent"])[1] == pytest.approx(1.0)
    assert reached(results, ["memory", "exponent"])[1] == pytest.approx(1.0)
    assert reached(results, ["a million tokens"])[1] == pytest.approx(2e8 / 2**30)


def test_a_bar_that_was_not_measured_is_neither_met_nor_missed(results):
    assert reached(results, ["ten million"])[1:] == (None,) * 4
    for bar in BARS:
        assert evaluate(bar, {}) == (None,) * 4


def test_utilisation_is_work_over_time_over_the_peak_of_the_precision(results):
    found = results["peers"]["configurations"]["latents"]
    assert utilisation(found, "ours", "train") == pytest.approx(3e9 / 1.0 / 1e10)
    assert utilisation(found, "ours+bf16-mixed", "train") == pytest.approx(3e9 / 0.4 / 4e10)


def test_the_roofline_names_the_work_that_stays_and_the_time_it_takes(results):
    line = roofline("bytes", results["peers"]["configurations"]["bytes"])
    assert "2 of 3 GFLOP" in line  # 1.5, rounded to even
    assert "150 ms at the fp32 peak" in line
    assert "the fastest peer 2,000 ms (15% of the peak)" in line


def test_what_a_missed_bar_lacks_is_shown_in_shares_of_the_time(results):
    missed, *_ = reached(results, ["qk = v = 261", "fast"])  # 2 ×, of 6 ×
    assert shortfall(missed, results).endswith(
        "the bar allows 33% of the time; the products alone take 50%, all operators alone 80%: "
        "no step made of them meets it"
    )
    floor = results["peers"]["configurations"]["cross_261"]["contestants"]["ours"]["floor"]["train"]
    floor |= {"products": 0.1, "operators": 0.25}
    assert shortfall(missed, results).endswith(
        "take 10%, all operators alone 25%: not shown out of reach"
    )
    floor["operators"] = 0.34  # more than a third, by less than the machine drifts
    assert shortfall(missed, results).endswith("all operators alone 34%: not shown out of reach")
    met, *_ = reached(results, ["text bytes", ", bf16-mixed:"])
    assert shortfall(met, results) is None


def test_a_spread_is_half_the_quartiles_distance():
    assert spread({"median": 2.0, "low": 1.8, "high": 2.4}) == "15 %"


def test_a_table_has_a_row_a_contestant_and_a_line_for_those_left_out(results):
    text = comparison("latents", results["peers"]["configurations"]["latents"])
    assert "| lucidrains | 500 | 2,000 | 10 % | 15% | 500 | 1,000 | 7 | 1e-07 |" in text
    assert "- krasserm: krasserm is left out: install it" in text
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --: |\n| 1 | 2 |"


def test_the_page_shows_every_bar_configuration_plot_and_command(results, tmp_path):
    written = page.write_page(list(results.values()), tmp_path).read_text()
    for bar in BARS:
        assert (bar.what in written) == (bar.device == "cpu")
    for sizes in CONFIGURATIONS.values():
        assert sizes.title in written
    for result in results.values():
        assert result["command"] in written
    pictures = re.findall(r"\]\((images/[\w-]+\.svg)\)", written)
    assert len(pictures) == 2
    assert all((tmp_path / picture).stat().st_size > 1000 for picture in pictures)
    assert str(tmp_path) not in written
    assert "## On a CPU: a CPU, 2 cores\n" in written
    assert "## On a cuda device\n\nNot measured: " in written
    assert "| reached | products alone | operators alone | roof | met |" in written
    assert "| ≥ 6× | 2× | 4× | 2.5× | 13.3× | **no** |" in written
    assert "- the paper's first cross-attend, qk = v = 261: training step, times as fast" in written
    assert "| dense | 200 | 5 % | 0.67 × |" in written
    assert "| default job, accuracy on the test set | mean | seed 0 | seed 1 |" in written
    assert "| auto | 37.50 % | 50.00 % | 25.00 % |" in written
    assert "| bf16 | 25.00 % | 25.00 % |  |" in written
    assert "| fsdd job" not in written
    assert (
        "| a stem, forward | 500 | **250** |\n| a stem, training step | **2,000** |  |" in written
    )
    assert "| clips | 100 | 250 (2.50 ×) | 70 |" in written
    assert "| clips | 0 | 50 | 100 (2.00 ×) | 200 (4.00 ×) | 40 | 30 (0.75 ×) |" in written


def test_each_machine_has_its_own_section_and_plots(results, tmp_path):
    other = {
        kind: {**r, "machine": r["machine"] | {"processor": "b"}} for kind, r in results.items()
    }
    written = page.write_page([*results.values(), *other.values()], tmp_path).read_text()
    first, second = written.split("## On a CPU: ")[1:]
    assert first.startswith("a CPU, 2 cores\n")
    assert second.startswith("b, 2 cores\n")
    assert "images/scaling-tokens-a-cpu-2-cores.svg" in first
    assert "images/scaling-tokens-b-2-cores.svg" in second
    assert written.count("*Operators alone* is what") == 1


def test_the_page_is_what_the_records_say(tmp_path):
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*/*.json"))]
    written = page.write_page(found, tmp_path).read_text()
    held = (PROJECT / "docs" / "performance.md").read_text()
    assert written == held, "python -m benchmarks.page writes it"


def test_the_page_is_made_from_files(results, tmp_path, monkeypatch, capsys):
    file = tmp_path / "peers.json"
    file.write_text(json.dumps(results["peers"]))
    monkeypatch.setattr("sys.argv", ["page", str(file), "--out", str(tmp_path / "docs")])
    page.main()
    assert (tmp_path / "docs" / "performance.md").exists()
    assert "performance.md" in capsys.readouterr().out


def test_a_record_of_processes_that_returned_freed_memory_says_so(results):
    found = results["peers"]["configurations"]["bytes"]
    assert "went back to the system" in comparison("bytes", found)
    assert "went back to the system" not in comparison("bytes", found | {"freed_memory": "kept"})


def test_a_gpu_has_its_own_bar_and_its_own_section(results, tmp_path):
    results["peers"]["machine"] |= {"device": "cuda", "accelerator": "a GPU"}
    written = page.write_page([results["peers"]], tmp_path).read_text()
    assert "## On a GPU: a GPU\n" in written
    assert "- a GPU\n" in written
    assert "| ≥ 60 % | 18.8 % |" in written  # 3 GFLOP in 0.4 s of 40 GFLOP/s
    assert "≥ 6 ×" not in written
