"""Text → token ids: UTF-8 bytes, or any Hugging Face tokenizer file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from datamodules.readers.field import Field
from datamodules.readers.reader import Cell, Reader, sample, span

_SAMPLE = 4096  # texts whose length is measured
_LONGEST = 512  # `fit` chooses no more tokens
_MAX_BYTES = 2**26  # of a file: a larger one is no text
BOM = b"\xef\xbb\xbf"
NUM_SPECIALS = 6  # pad 0, bos 1, eos 2, mask 3, cls 4, sep 5, as the Perceiver IO paper's tokenizer
BYTE_VOCAB_SIZE = 256 + NUM_SPECIALS


@dataclass(frozen=True)
class TextReader(Reader):
    """What a text is to the model (`data.text` in the config).

    Args:
        max_length: longer texts are cut to this many tokens (a cut may split a character).
        vocab_size: number of distinct ids; 262 for bytes.
        tokenizer: path of a Hugging Face `tokenizer.json`; None = bytes.
        errors: what to do with bytes that are not UTF-8: "raise", or "replace" by U+FFFD.
        pad_multiple: batches are padded to a multiple of this many tokens.
        crop: which part of a longer text stays: "first", "last", or "random" (in training; in
            evaluation the first).
    """

    fitted: ClassVar[tuple[str, ...]] = ("max_length",)
    suffixes: ClassVar[frozenset[str]] = frozenset({".txt", ".md", ".text"})
    is_costly: ClassVar[bool] = False

    max_length: int
    vocab_size: int = BYTE_VOCAB_SIZE
    tokenizer: str | None = None
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
        size = self._tokenizer.get_vocab_size() if self.tokenizer else BYTE_VOCAB_SIZE
        if self.vocab_size != size:
            name = self.tokenizer or "UTF-8 bytes"
            raise ValueError(
                f"data.text.vocab_size={self.vocab_size}, but {name} has {size} ids: "
                f"set data.text.vocab_size={size}."
            )

    @cached_property
    def _tokenizer(self) -> Any:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ValueError(
                f"data.text.tokenizer={self.tokenizer} needs the package tokenizers: "
                "pip install 'perceiver-multimodal[text]'."
            ) from error
        if not Path(self.tokenizer).is_file():
            raise FileNotFoundError(f"data.text.tokenizer={self.tokenizer} is not a file.")
        return Tokenizer.from_file(str(self.tokenizer))

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
        if self.tokenizer or not set(map(type, cells)) <= {str, bytes, type(None)}:
            return None
        raw = [
            self._cut(decode_utf8(cell.removeprefix(BOM), where="", errors=self.errors))
            if isinstance(cell, bytes)
            else self._cut(cell or "")
            for cell in cells
        ]
        rows = _byte_ids(b"".join(raw)).split(list(map(len, raw)))
        return [row if text else None for row, text in zip(rows, raw, strict=True)]

    def _cut(self, text: str) -> bytes:
        """The first or last bytes of a text, so many as there may be tokens."""
        # A character has at least a byte: what follows the cut need not be encoded.
        if self.crop == "last":
            return text[-self.max_length :].encode("utf-8")[-self.max_length :]
        return text[: self.max_length].encode("utf-8")[: self.max_length]

    def length_of(self, cell: Cell) -> int:
        return min(_num_bytes(cell), self.max_length)

    @classmethod
    def fit(cls, given: Mapping[str, Any], columns: Sequence[Sequence[Cell]]) -> dict[str, Any]:
        """A length that 99 % of the texts keep to, up to 512 tokens (counted as bytes)."""
        found = dict(given)
        if found.get("max_length") is None:
            long = float(np.quantile(_lengths(columns) or [_LONGEST], 0.99))
            found["max_length"] = int(min(max(-(-long // 8) * 8, 8), _LONGEST))
        return found

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
        is_last = self.crop == "last"
        is_random = self.draws and rng is not None
        if self.tokenizer:
            ids = torch.tensor(self._tokenizer.encode(text).ids, dtype=torch.int64)
        else:
            ids = _byte_ids(text.encode("utf-8") if is_random else self._cut(text))
        spare = ids.shape[0] - self.max_length
        if spare > 0:
            start = int(rng.integers(spare + 1)) if is_random else spare if is_last else 0
            ids = ids[start : start + self.max_length]
        return ids if ids.shape[0] else None


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


def _lengths(columns: Sequence[Sequence[Cell]]) -> list[int]:
    """Bytes of a sample of the texts."""
    return [length for length in map(_num_bytes, sample(columns, _SAMPLE)) if length]


def _num_bytes(cell: Cell) -> int:
    if isinstance(cell, Path):
        return cell.stat().st_size if cell.exists() else 0
    return len(cell.encode("utf-8") if isinstance(cell, str) else cell or b"")
