"""Vocabularies of the training texts' own words, as plain text that a checkpoint can hold."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from unicodedata import category, name, normalize

NUM_SPECIALS = 6  # pad 0, bos 1, eos 2, mask 3, cls 4, sep 5, as the Perceiver IO paper's tokenizer
UNKNOWN = NUM_SPECIALS  # the id of any other word
LARGEST = 16_000  # words at most
_LEAST = 2  # occurrences of a word
_LONGEST = 64  # characters of a word
_MAX_CHARACTERS = 2**25  # of all texts, that words are counted in
_NO_SPACES = ("CJK UNIFIED", "HIRAGANA", "KATAKANA")  # scripts whose signs are words of their own
_APOSTROPHE = re.compile(r"(?<=\w)['\u2019](?=\w)")


class _Spacing(dict[int, str]):
    """Character → itself, with spaces around what is a word by itself."""

    def __missing__(self, code: int) -> str:
        sign = chr(code)
        is_word = category(sign)[0] in "PS" or name(sign, "").startswith(_NO_SPACES)
        self[code] = f" {sign} " if is_word else sign
        return self[code]


_SPACING = _Spacing()


def split_words(text: str, *, lowercase: bool) -> list[str]:
    """The words of a text: what stands between spaces; punctuation and Chinese signs are words.

    An apostrophe within a word belongs to it (don't), as a letter of its own kind (U+02BC).
    """
    text = normalize("NFKC", text)
    text = _APOSTROPHE.sub("\u02bc", text.lower() if lowercase else text)
    return text.translate(_SPACING).split()


class Words:
    """Texts → ids of a vocabulary's words.

    Args:
        vocabulary: the words of the ids 7 and on, with a space between.
        lowercase: whether texts are read in small letters.

    Raises:
        ValueError: it names a word twice.
    """

    def __init__(self, vocabulary: str, *, lowercase: bool) -> None:
        words = vocabulary.split()
        self.lowercase = lowercase
        self.ids = {word: number for number, word in enumerate(words, UNKNOWN + 1)}
        if len(self.ids) < len(words):
            raise ValueError("data.text.vocabulary names a word twice: give each once.")

    def __call__(self, text: str) -> list[int]:
        """At least one id of a text that is not empty, be it of blanks."""
        get = self.ids.get
        ids = [get(word, UNKNOWN) for word in split_words(text, lowercase=self.lowercase)]
        return ids or [UNKNOWN] * bool(text)

    @property
    def vocab_size(self) -> int:
        return UNKNOWN + 1 + len(self.ids)


def learn_vocabulary(texts: Iterable[str], *, lowercase: bool) -> str:
    """The words of texts that come more than once, the most frequent first, a space between.

    Args:
        texts: of the training examples.
        lowercase: whether to count them in small letters.
    """
    counts: Counter[str] = Counter()
    total = 0
    for text in texts:
        counts.update(split_words(text, lowercase=lowercase))
        total += len(text)
        if total >= _MAX_CHARACTERS:
            break
    known = (word for word, count in counts.items() if count >= _LEAST and len(word) <= _LONGEST)
    return " ".join(sorted(known, key=lambda word: (-counts[word], word))[:LARGEST])


def known_share(texts: Sequence[str]) -> float:
    """The share of the words in one half of some texts that the other half has as well.

    It is high of sentences, and low of codes, of scripts that put no spaces between words, and of
    very few texts.
    """
    words = [split_words(text, lowercase=True) for text in texts]
    seen = set(chain.from_iterable(words[::2]))
    others = list(chain.from_iterable(words[1::2] or words))
    return sum(word in seen for word in others) / max(len(others), 1)


def case_is_idle(texts: Sequence[str]) -> bool:
    """Whether texts that differ stay different in small letters, all but one in a hundred."""
    distinct = set(texts)
    return len({text.lower() for text in distinct}) >= 0.99 * len(distinct)
