"""Vocabularies of the training texts' own words, as plain text that a checkpoint can hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

# The ids 0 to 5, as the Perceiver IO paper's tokenizer of bytes has them; 6 is any other word.
SPECIALS = ("[PAD]", "[BOS]", "[EOS]", "[MASK]", "[CLS]", "[SEP]")
UNKNOWN = "[UNK]"
LARGEST = 16_000  # words at most
_FILE = "tokenizer.json"
_SECONDS = 5  # until the hub counts as out of reach
_LEAST = 2  # occurrences of a word
_MAX_CHARACTERS = 2**25  # of all texts, that words are counted in


def words_tokenizer(vocabulary: str, *, lowercase: bool) -> Tokenizer:
    """Texts → ids: the words of a vocabulary, split at spaces and around punctuation.

    Signs of Chinese are words of their own. Nothing but the words comes from the outside.

    Args:
        vocabulary: the words of the ids 7 and on, with a space between.
        lowercase: whether texts are read in small letters.
    """
    words = [*SPECIALS, UNKNOWN, *filter(None, vocabulary.split(" "))]
    ids = {word: number for number, word in enumerate(words)}
    if len(ids) < len(words):
        raise ValueError("data.text.vocabulary names a word twice: give each once.")
    return _splitting(Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN)), lowercase=lowercase)


def learn_vocabulary(texts: Sequence[str], *, lowercase: bool, least: int = _LEAST) -> str:
    """The words of texts that come more than once, the most frequent first.

    Args:
        texts: of the training examples.
        lowercase: whether to count them in small letters.
        least: occurrences of a word.
    """
    words = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    _splitting(words, lowercase=lowercase)
    trainer = trainers.WordLevelTrainer(
        vocab_size=LARGEST, min_frequency=least, special_tokens=[UNKNOWN], show_progress=False
    )
    words.train_from_iterator(_so_many(texts), trainer)
    found = words.get_vocab()
    return " ".join(sorted(set(found) - {UNKNOWN, *SPECIALS}, key=found.__getitem__))


def known_share(texts: Sequence[str], *, lowercase: bool) -> float:
    """The share of the words in one half of some texts that the other half has as well.

    It is high of sentences, and low of codes, of scripts that put no spaces between words, and of
    very few texts.
    """
    seen, others = texts[::2], texts[1::2] or texts
    words = words_tokenizer(
        learn_vocabulary(seen, lowercase=lowercase, least=1), lowercase=lowercase
    )
    ids = [id for text in words.encode_batch(list(others)) for id in text.ids]
    return sum(id > len(SPECIALS) for id in ids) / max(len(ids), 1)


def case_is_idle(texts: Sequence[str]) -> bool:
    """Whether texts that differ stay different in small letters, all but one in a hundred."""
    distinct = set(texts)
    return len({text.lower() for text in distinct}) >= 0.99 * len(distinct)


def open_tokenizer(name: str) -> Tokenizer:
    """A Hugging Face tokenizer: a `tokenizer.json`, a folder with one, or a name on the hub.

    Raises:
        FileNotFoundError: there is no such file, and no such name either.
        ValueError: the file holds no tokenizer.
    """
    path = Path(name)
    if path.is_dir():
        path = path / _FILE
    if not path.is_file():
        path = Path(_from_hub(name))
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more precise
        what = (str(error).splitlines() or ["it is damaged"])[0]
        raise ValueError(
            f"data.text.tokenizer={name} is not a Hugging Face {_FILE}: {what}."
        ) from error


def _from_hub(name: str) -> str:
    """The file of a name on the hub, from the disk where it was fetched before."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.utils import get_session

    refusal = f"data.text.tokenizer={name} is not a file, nor a name"
    if name.endswith(".json") or name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise FileNotFoundError(f"data.text.tokenizer={name} is not a file.")
    try:
        return hf_hub_download(name, _FILE, local_files_only=True)
    except (OSError, ValueError):
        pass
    try:
        if constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        get_session().head(constants.ENDPOINT, timeout=_SECONDS)  # fetching would ask for long
    except Exception as error:  # of whatever library asks
        raise FileNotFoundError(
            f"{refusal} that was fetched before, and the hub cannot be asked ({error}): name a "
            f"{_FILE} on the disk, or data.text.tokenizer=null for one of the training texts."
        ) from error
    try:
        return hf_hub_download(name, _FILE)
    except (OSError, ValueError) as error:
        what = str(error).splitlines()[0]
        raise FileNotFoundError(f"{refusal} on the hub with a {_FILE}: {what}") from error


def _splitting(tokenizer: Tokenizer, *, lowercase: bool) -> Tokenizer:
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.BertNormalizer(strip_accents=False, lowercase=lowercase),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _so_many(texts: Sequence[str]) -> Iterator[str]:
    """The texts, as many as are counted."""
    total = 0
    for text in texts:
        if total >= _MAX_CHARACTERS:
            return
        total += len(text)
        yield text
