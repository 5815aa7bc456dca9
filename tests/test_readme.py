"""README.md and docs/: what they print can be run, and does what it says."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from runner.errors import USER_ERRORS, sentence
from tests.configs import compose_config

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
PAGES = "\n".join(
    [README, *(page.read_text(encoding="utf-8") for page in sorted(PROJECT.glob("docs/*.md")))]
)
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGES, flags=re.DOTALL)
COMMAND = re.compile(r"python ((train|evaluate|predict)\.py[^`\n]*)")


@pytest.mark.parametrize("code", [code for language, code in BLOCKS if language == "python"])
def test_python_example_runs(code):
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


def commands():
    found = {}
    for match in COMMAND.finditer(PAGES):
        words = shlex.split(match.group(1), comments=True)
        script, arguments = words[0], [word for word in words[1:] if "=" in word]
        if "-m" in words:  # of a sweep, its first job
            arguments = [re.sub(r"=([^,\[]+),.*", r"=\1", word) for word in arguments]
        found[" ".join([script, *arguments])] = (script, arguments)
    return found


# The README shows one mistake, with what it prints.
MISTAKE = "optimizer.lrr=1e-3"


@pytest.mark.parametrize(("script", "arguments"), commands().values(), ids=commands())
def test_command_composes(script, arguments, tmp_path):
    name = {"train.py": "config"}.get(script, script.removesuffix(".py"))
    if arguments == [MISTAKE]:
        with pytest.raises(USER_ERRORS) as caught:
            compose_config(name, tuple(arguments))
        assert f"error: {sentence(caught.value, PROJECT / 'conf', name)}\n" in README
    else:
        ours = [word for word in arguments if not word.startswith("hydra.")]
        config = compose_config(name, (*ours, f"paths.run_dir={tmp_path}"))
        OmegaConf.to_container(config, resolve=True)


def test_the_two_commands_stand_at_the_top():
    language, first = BLOCKS[0]
    assert language == "bash"
    assert first == ("pip install -e . && python train.py\npip install -e '.[dev]' && pytest\n")


def test_constraints_pin_every_dependency_within_its_bounds():
    from packaging.requirements import Requirement

    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    pinned = dict(
        line.split("==")
        for line in (PROJECT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(pinned[requirement.name]), line
