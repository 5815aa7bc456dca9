"""What people write after text= arrives as they wrote it."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from predict import as_it_stands

TEXTS = [
    "seven",
    " two words and a \N{GRINNING FACE}",
    "a, b: c = d",
    "it's",
    'she said "x"',
    "back\\slash\\",
    "a \\' b \\\\' c",
    "${oc.env:HOME}",
    "\\${oc.env:HOME} \\\\${5} costs ${5",
    "7",
    "[1, 2]",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_is_taken_as_it_stands(text):
    override = OverridesParser.create().parse_override(as_it_stands(f"text={text}"))
    value = override.value()
    assert OmegaConf.create({"text": str(value)}).text == text


@pytest.mark.parametrize("word", ["text='a, b'", 'text="a"', "text=null", "image=a.png", "text"])
def test_what_is_quoted_already_and_other_overrides_stay(word):
    assert as_it_stands(word) == word
