"""Text → token ids: UTF-8 bytes, the words of the training texts, or any Hugging Face tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from datamodules.readers.field import Field
from datamodules.readers.hf_tokenizer import open_tokenizer
from datamodules.readers.reader import Cell, Reader, sample, span
from datamodules.readers.vocabulary import (
    NUM_SPECIALS,
    Words,
    case_is_idle,
    known_share,
    learn_vocabulary,
)

BYTES, WORDS = "bytes", "words"
_SAMPLE = 4096  # texts whose length is measured
_TEXTS = 2**16  # texts whose words are counted
_KNOWN = 0.5  # share of known words, from which on texts are read as words
_LONGEST_TEXT = 2**16  # characters of a text whose words are counted
_CHARACTERS = 32  # more than a token has
_BYTES_A_TOKEN = 5  # about
_LONGEST = 512  # `fit` chooses no more tokens
_MAX_BYTES = 2**26  # of a file: a larger one is no text
BOM = b"\xef\xbb\xbf"
BYTE_VOCAB_SIZE = 256 + NUM_SPECIALS


@dataclass(frozen=True)
class TextReader(Reader):
    """What a text is to the model (`data.text` in the config).

    Args:
        max_length: longer texts are cut to this many tokens (a cut may split a character of bytes).
        vocab_size: number of distinct ids; None = as many as the tokenizer has.
        tokenizer: "bytes"; "words" of a vocabulary; or the path of a Hugging Face
            `tokenizer.json`, or its name on the hub.
        vocabulary: the words, with a space between; of "words" alone.
        lowercase: whether texts are read in small letters; of "words" alone.
        errors: what to do with bytes that are not UTF-8: "raise", or "replace" by U+FFFD.
        pad_multiple: batches are padded to a multiple of this many tokens.
        crop: which part of a longer text stays: "first", "last", or "random" (in training; in
            evaluation the first).
    """

    fitted: ClassVar[tuple[str, ...]] = ("max_length", "tokenizer", "vocab_size")
    suffixes: ClassVar[frozenset[str]] = frozenset({".txt", ".md", ".text"})
    is_costly: ClassVar[bool] = False

    max_length: int
    vocab_size: int | None = None
    tokenizer: str = BYTES
    vocabulary: str | None = None
    lowercase: bool | None = None
    errors: str = "raise"
    pad_multiple: int = 1
    crop: str = "first"

    def __post_init__(self) -> None:
        if self.max_length < 1:
            raise ValueError(f"data.text.max_length={self.max_length}, expected at least 1.")
        if self.crop not in ("first", "last", "random"):
            raise ValueError(f"data.text.crop={self.crop!r}, expected first, last or random.")
        if self.errors not in ("raise", "replace"):
            raise ValueError(f"data.text.errors={self.errors!r}, expected raise or replace.")
        if (self.tokenizer == WORDS) != (self.vocabulary is not None):
            raise ValueError(
                f"data.text.vocabulary is {'not ' if self.vocabulary is None else ''}given, "
                f"data.text.tokenizer={self.tokenizer}: {WORDS} have one, nothing else does."
            )
        size = self._size()
        if self.vocab_size is None:
            object.__setattr__(self, "vocab_size", size)
        if self.vocab_size != size:
            raise ValueError(
                f"data.text.vocab_size={self.vocab_size}, but data.text.tokenizer={self.tokenizer} "
                f"has {size} ids: leave data.text.vocab_size=null."
            )

    def _size(self) -> int:
        if self.tokenizer == BYTES:
            return BYTE_VOCAB_SIZE
        return self._words.vocab_size if self.tokenizer == WORDS else self._file.get_vocab_size()

    @cached_property
    def _words(self) -> Words:
        return Words(self.vocabulary or "", lowercase=bool(self.lowercase))

    @cached_property
    def _file(self) -> Any:
        return open_tokenizer(self.tokenizer)

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Those of words, or of a Hugging Face tokenizer."""
        if self.tokenizer == WORDS:
            return [self._words(text) for text in texts]
        return [found.ids for found in self._file.encode_batch(texts)]

    def field(self) -> Field:
        return Field(
            (),
            dtype=torch.int64,
            is_ragged=True,
            pad_multiple=self.pad_multiple,
            max_length=self.max_length,
        )

    @property
    def draws(self) -> bool:
        return self.crop == "random"

    def decode(
        self, cell: Cell, *, where: str, rng: np.random.Generator | None = None
    ) -> Tensor | None:
        """(length,) int64 ids of a text, or of a file of text; None where it is empty."""
        if isinstance(cell, Path):
            cell, where = _read_file(cell), str(cell)
        if isinstance(cell, bytes):
            cell = decode_utf8(cell.removeprefix(BOM), where=where, errors=self.errors)
        return self.encode(cell, rng=rng)

    def decode_all(self, cells: Sequence[Cell]) -> list[Tensor | None] | None:
        """Of texts and their bytes; a tensor made by itself takes longer than its bytes."""
        if not set(map(type, cells)) <= {str, bytes, type(None)}:
            return None
        texts = [
            decode_utf8(cell.removeprefix(BOM), where="", errors=self.errors)
            if isinstance(cell, bytes)
            else cell or ""
            for cell in cells
        ]
        if self.tokenizer != BYTES:
            return [self._part(ids) for ids in self._ids([self._near(text) for text in texts])]
        raw = [self._cut(text) for text in texts]
        rows = _byte_ids(b"".join(raw)).split(list(map(len, raw)))
        return [row if text else None for row, text in zip(rows, raw, strict=True)]

    def _cut(self, text: str) -> bytes:
        """The first or last bytes of a text, so many as there may be tokens."""
        # A character has at least a byte: what follows the cut need not be encoded.
        if self.crop == "last":
            return text[-self.max_length :].encode("utf-8")[-self.max_length :]
        return text[: self.max_length].encode("utf-8")[: self.max_length]

    def _near(self, text: str, rng: np.random.Generator | None = None) -> str:
        """So many characters as surely make the longest sequence: tokens take time to find."""
        spare = len(text) - _CHARACTERS * self.max_length
        if spare <= 0:
            return text
        start = int(rng.integers(spare + 1)) if rng else spare if self.crop == "last" else 0
        return text[start : start + _CHARACTERS * self.max_length]

    def _part(self, ids: Sequence[int], rng: np.random.Generator | None = None) -> Tensor | None:
        """The ids that stay, as a tensor."""
        spare = len(ids) - self.max_length
        if spare > 0:
            start = int(rng.integers(spare + 1)) if rng else spare if self.crop == "last" else 0
            ids = ids[start : start + self.max_length]
        return torch.as_tensor(ids, dtype=torch.int64) if len(ids) else None

    def length_of(self, cell: Cell) -> int:
        length = _num_bytes(cell)
        length = length if self.tokenizer == BYTES else -(-length // _BYTES_A_TOKEN)
        return min(length, self.max_length)

    @classmethod
    def open_options(cls, given: Mapping[str, Any]) -> list[str]:
        learned = ("vocabulary", "lowercase") if given.get("tokenizer") == WORDS else ()
        return [name for name in (*cls.fitted, *learned) if given.get(name) is None]

    @classmethod
    def fit(cls, given: Mapping[str, Any], columns: Sequence[Sequence[Cell]]) -> dict[str, Any]:
        """What is left open, from the training texts.

        The tokens are words, where half of them come again in other texts, else bytes; words are
        read in small letters where texts that differ still differ then. 99 % of the texts keep to
        the length, up to 512 tokens.
        """
        found = {name: value for name, value in given.items() if value is not None}
        texts = _texts(columns, _TEXTS)
        if "tokenizer" not in found:
            few = texts[:: -(-len(texts) // _SAMPLE) or 1]
            is_known = known_share(few) >= _KNOWN
            found["tokenizer"] = WORDS if is_known else BYTES
        if found["tokenizer"] == WORDS:
            found.setdefault("lowercase", case_is_idle(texts))
            if "vocabulary" not in found:
                found["vocabulary"] = learn_vocabulary(texts, lowercase=found["lowercase"])
        if "max_length" not in found:
            reader = cls(**found | {"max_length": _LONGEST + 1, "pad_multiple": 1})
            if found["tokenizer"] == BYTES:
                lengths = _lengths(columns)
            else:
                tensors = map(reader.encode, texts[:: -(-len(texts) // _SAMPLE) or 1])
                lengths = [len(ids) for ids in tensors if ids is not None]
            long = float(np.quantile(lengths or [_LONGEST], 0.99))
            found["max_length"] = int(min(max(-(-long // 8) * 8, 8), _LONGEST))
        return found

    def chosen(self) -> str:
        """What its tokens are, for people."""
        if self.tokenizer == WORDS:
            case = ", in small letters" if self.lowercase else ""
            return (
                f"tokens are words of the training texts, {self.vocab_size:,} of them{case} "
                f"(data.text.tokenizer={WORDS}; {BYTES} would be UTF-8)"
            )
        if self.tokenizer == BYTES:
            return f"tokens are UTF-8 bytes (data.text.tokenizer={BYTES})"
        return f"tokens are those of {self.tokenizer}, {self.vocab_size:,} of them"

    @classmethod
    def describe(cls, columns: Sequence[Sequence[Cell]]) -> str:
        lengths = _lengths(columns)
        return f"{span(lengths, 'bytes')}, median {np.median(lengths):,.4g}" if lengths else ""

    def encode(self, text: str, *, rng: np.random.Generator | None = None) -> Tensor | None:
        """(length,) int64 ids, or None where the text is empty (the modality is absent).

        Args:
            text: of any length.
            rng: draws which part stays, where `crop` is "random"; None = the first.
        """
        rng = rng if self.draws else None
        if self.tokenizer != BYTES:
            (ids,) = self._ids([self._near(text, rng)])
            return self._part(ids, rng)
        return self._part(_byte_ids(text.encode("utf-8") if rng else self._cut(text)), rng)


def decode_utf8(raw: bytes, *, where: str, errors: str = "raise") -> str:
    """Bytes → text.

    Args:
        raw: the bytes.
        where: file and line, for the message.
        errors: "raise", or "replace" invalid bytes by U+FFFD.

    Raises:
        ValueError: the bytes are not UTF-8 and `errors` is "raise".
    """
    try:
        return raw.decode("utf-8", errors="strict" if errors == "raise" else errors)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where} is not UTF-8 (byte 0x{raw[error.start]:02x} at position {error.start}): "
            "repair it or set data.text.errors=replace."
        ) from error


def _byte_ids(raw: bytes) -> Tensor:
    return torch.from_numpy(np.add(np.frombuffer(raw, np.uint8), NUM_SPECIALS, dtype=np.int64))


def _read_file(path: Path) -> bytes:
    """Raises ValueError for a file that is not there or far too large for a text."""
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise ValueError(
                f"The text {path} has {size:,} bytes, more than {_MAX_BYTES:,}: this is no text "
                "of an example. Replace or remove it."
            )
        return path.read_bytes()
    except OSError as error:
        what = "there is no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise ValueError(f"Cannot read the text {path}: {what}. Replace or remove it.") from error


def _texts(columns: Sequence[Sequence[Cell]], count: int) -> list[str]:
    """Some of the texts; without those that cannot be read, which reading reports."""
    found = []
    for cell in sample(columns, count):
        with suppress(ValueError):
            raw = _read_file(cell) if isinstance(cell, Path) else cell
            text = raw if isinstance(raw, str) else raw.removeprefix(BOM).decode("utf-8", "replace")
            found.append(text[:_LONGEST_TEXT])
    return found


def _lengths(columns: Sequence[Sequence[Cell]]) -> list[int]:
    """Bytes of a sample of the texts."""
    return [length for length in map(_num_bytes, sample(columns, _SAMPLE)) if length]


def _num_bytes(cell: Cell) -> int:
    if isinstance(cell, Path):
        return cell.stat().st_size if cell.exists() else 0
    return len(cell.encode("utf-8") if isinstance(cell, str) else cell or b"")
