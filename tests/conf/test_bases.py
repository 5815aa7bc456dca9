"""conf/*/_base: choices of a group stand on bases, and repeat nothing of them."""

import pytest
import yaml
from omegaconf import OmegaConf

from tests.configs import CONF, choices, compose_config, data_config

CHOICES = [(group, name) for group in ("attention", "data") for name in choices(group)]


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def leaves(node, path=()):
    """Every value that is no dict, by its path; an empty dict says nothing."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        elif key != "defaults":
            yield (*path, key), value


def said_by_bases(path):
    """What the bases of a file say before it and after it: two dicts, path of an option → value."""
    before, after = {}, {}
    found = before
    for base in load(path).get("defaults", []):
        if base == "_self_":
            found = after
        elif isinstance(base, str):
            file = path.parent / f"{base.removesuffix('@_here_')}.yaml"
            for said in (*said_by_bases(file), dict(leaves(load(file)))):
                found |= said
    return before, after


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_a_choice_says_nothing_that_its_bases_say_already_or_would_undo(group, name):
    path = CONF / group / f"{name}.yaml"
    own = dict(leaves(load(path)))
    before, after = said_by_bases(path)
    assert before, "every choice stands on a base"
    assert not {option for option in own if option in before and before[option] == own[option]}
    assert not set(own) & set(after)


def test_a_base_is_no_choice_and_what_it_says_reaches_every_choice_on_it():
    assert "dataset" not in choices("data")
    for name in ("cifar10", "manifest", "digits"):
        assert data_config(name).bucket_batches == 0
    base = compose_config(overrides=("data=_base/dataset",)).data
    assert OmegaConf.is_missing(base, "_target_")
