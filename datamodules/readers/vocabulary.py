"""Vocabularies of the training texts' own words, as plain text that a checkpoint can hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

NUM_SPECIALS = 6  # pad 0, bos 1, eos 2, mask 3, cls 4, sep 5, as the Perceiver IO paper's tokenizer
UNKNOWN = NUM_SPECIALS  # the id of any other word
LARGEST = 16_000  # words at most
_UNKNOWN_WORD = "[UNK]"  # no word of a text: punctuation is split off
_LEAST = 2  # occurrences of a word
_LONGEST = 64  # characters of a word
_MAX_CHARACTERS = 2**23  # of all texts, that words are counted in


def _normaliser(*, lowercase: bool) -> BertNormalizer:
    """BERT's (Devlin et al. 2019): control characters out, spaces around Chinese signs."""
    return BertNormalizer(lowercase=lowercase, strip_accents=False)


def split_words(text: str, *, lowercase: bool) -> list[str]:
    """The words of a text, as BERT splits them: at spaces, and around punctuation."""
    normal = _normaliser(lowercase=lowercase).normalize_str(text)
    return [word for word, _ in BertPreTokenizer().pre_tokenize_str(normal)]


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
        ids = {word: number for number, word in enumerate(words, UNKNOWN + 1)}
        if len(ids) < len(words):
            raise ValueError("data.text.vocabulary names a word twice: give each once.")
        self.vocab_size = UNKNOWN + 1 + len(ids)
        model = WordLevel({_UNKNOWN_WORD: UNKNOWN} | ids, unk_token=_UNKNOWN_WORD)
        self.tokenizer = Tokenizer(model)
        self.tokenizer.normalizer = _normaliser(lowercase=lowercase)
        self.tokenizer.pre_tokenizer = BertPreTokenizer()

    def __call__(self, text: str) -> list[int]:
        """At least one id of a text that is not empty, be it of blanks."""
        return self.tokenizer.encode(text).ids or [UNKNOWN] * bool(text)


def learn_vocabulary(texts: Iterable[str], *, lowercase: bool) -> str:
    """The words of texts that come more than once, the most frequent first, a space between.

    They are counted here because the library's trainers order words of equal counts anew each time.

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
