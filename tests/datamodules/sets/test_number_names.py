"""The table of names, and typing errors."""

import unicodedata

import numpy as np
import pytest

from datamodules.sets.synthesis.number_names import ALPHABETS, NAMES, misspell


def scripts(text):
    return {unicodedata.name(character).split()[0] for character in text}


def test_every_language_names_ten_digits():
    assert len(NAMES) >= 10
    assert {len(names) for names in NAMES.values()} == {10}
    assert all(len(set(names)) == 10 for names in NAMES.values())


def test_a_name_means_the_same_digit_in_all_languages():
    meaning = {}
    for names in NAMES.values():
        for digit, name in enumerate(names):
            assert meaning.setdefault(name, digit) == digit, name


def test_names_are_composed_utf8_of_one_script():
    for language, names in NAMES.items():
        text = "".join(names)
        assert unicodedata.normalize("NFC", text) == text
        assert text.encode("utf-8").decode("utf-8") == text
        assert len(scripts(text)) == 1, language


def test_many_scripts_are_there():
    found = set().union(*(scripts("".join(names)) for names in NAMES.values()))
    assert found >= {
        "LATIN", "CYRILLIC", "GREEK", "DEVANAGARI", "ARABIC", "HEBREW", "GEORGIAN", "THAI", "CJK",
        "HIRAGANA", "HANGUL",
    }  # fmt: skip


def slips(text, *, rate=1.0, seeds=range(200), alphabet="xyz"):
    return [
        misspell(text, rate=rate, alphabet=alphabet, rng=np.random.default_rng(s)) for s in seeds
    ]


def test_no_slip_at_rate_zero():
    assert set(slips("seven", rate=0.0)) == {"seven"}


def test_one_slip_is_a_substitution_deletion_insertion_or_exchange():
    at_first = set(slips("ab", rate=0.5, alphabet="x", seeds=range(500)))
    assert {"xb", "b", "axb", "ba"} <= at_first
    assert {"ax", "a", "abx"} <= at_first


def test_one_character_always_remains():
    assert min(map(len, slips("ab"))) == 1
    assert min(map(len, slips("二", alphabet="一"))) == 1


def test_slips_follow_the_rate():
    typed = slips("a" * 101, rate=0.2, alphabet="x")
    # Half of the slips put an x somewhere; three standard deviations of 20,200 draws is 0.006.
    share = np.mean([text.count("x") / 101 for text in typed])
    assert share == pytest.approx(0.1, abs=0.007)


def test_slips_use_characters_of_the_language():
    for language, names in NAMES.items():
        alphabet = ALPHABETS[language]
        for typed in slips(names[7], seeds=range(5), alphabet=alphabet):
            assert set(typed) <= set(alphabet)
