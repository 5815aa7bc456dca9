"""The sweep over attentions and the table of its results: complete, and what the runs say."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from benchmarks.attention import described, known_presets, main

PROJECT = Path(__file__).parents[1]
PAGE = (PROJECT / "docs" / "attention.md").read_text(encoding="utf-8")
# Those that tests/conf/test_every_choice.py sees refused as the default job's cross-attention.
REFUSED = {"enc_dec_dot", "enc_only_dot", "luong_dot", "multi_head", "stand_alone", "swin"}


def test_the_sweep_tries_every_attention_that_can_serve():
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        config = compose(
            "config", ["experiment=attention_sweep", "paths.run_dir=x"], return_hydra_config=True
        )
        assert config.hydra.mode.name == "MULTIRUN"
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        [(group, choice)] = config.hydra.sweeper.params.items()
        [override] = parser.parse_overrides([f"{group}={choice}"])
        swept = set(override.sweep_string_iterator())
    assert group == "attention@model.cross_attention"
    assert swept == set(known_presets()) - REFUSED


@pytest.fixture
def finished(tmp_path):
    def run(job, override, accuracy):
        folder = tmp_path / "multirun" / str(job)
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra" / "overrides.yaml").write_text(f"- seed=0\n- {override}\n")
        results = {"test/acc": accuracy, "fit_seconds": 3.0}
        (folder / "results.json").write_text(json.dumps(results))

    run(0, "attention@model.cross_attention=single_head", 0.983)
    run(1, "attention@model.cross_attention=sparsemax", 0.961)
    run(2, "attention@model.latent_attention=sparsemax", 0.985)
    run(3, "optimizer=lamb", 0.5)
    return tmp_path / "multirun"


def test_the_table_holds_what_the_runs_say(finished):
    lines = main([str(finished)]).splitlines()
    found = {}
    for line in lines[2:]:
        name, *_, place, accuracy, points = [cell.strip() for cell in line.split("|")[1:-1]]
        found[name.strip("`"), place] = accuracy, points
    assert found.pop(("single_head", "cross")) == ("98.3", "+0.0")
    assert found.pop(("sparsemax", "cross")) == ("96.1", "-2.2")
    assert found.pop(("sparsemax", "latent")) == ("98.5", "+0.2")
    assert set(found.values()) == {("–", "–")}
    assert {name for name, _ in found} == set(known_presets()) - {"single_head", "sparsemax"}


@pytest.mark.parametrize(
    ("folders", "said"), [([], "no folder is named"), (["nowhere"], "no folder nowhere")]
)
def test_folders_that_are_not_there_are_named(folders, said):
    with pytest.raises(SystemExit, match=said):
        main(folders)


def test_a_folder_without_such_runs_says_so(tmp_path):
    with pytest.raises(SystemExit, match=r"no finished run below .* chose attention@model"):
        main([str(tmp_path)])


@pytest.mark.parametrize("preset", known_presets())
def test_the_page_says_of_a_preset_what_its_file_says(preset):
    what, axes = described(preset)
    assert f"| `{preset}` | {what} | {axes} |" in PAGE
