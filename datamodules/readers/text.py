"""Text → token ids: UTF-8 bytes, or any Hugging Face tokenizer file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.collate import Field

NUM_SPECIALS = 6  # pad 0, bos 1, eos 2, mask 3, cls 4, sep 5, as the Perceiver IO paper's tokenizer
BYTE_VOCAB_SIZE = 256 + NUM_SPECIALS


@dataclass(frozen=True)
class TextOptions:
    """What a text is to the model (`data.text` in the config).

    Args:
        max_length: longer texts are cut to this many tokens (a cut may split a character).
        vocab_size: number of distinct ids; 262 for bytes.
        tokenizer: path of a Hugging Face `tokenizer.json`; None = bytes.
        errors: what to do with bytes that are not UTF-8: "raise", or "replace" by U+FFFD.
        pad_multiple: batches are padded to a multiple of this many tokens.
    """

    max_length: int
    vocab_size: int = BYTE_VOCAB_SIZE
    tokenizer: str | None = None
    errors: str = "raise"
    pad_multiple: int = 1

    def __post_init__(self) -> None:
        if self.max_length < 1:
            raise ValueError(f"data.text.max_length={self.max_length}, expected at least 1.")
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
        """For the collator."""
        return Field(
            (),
            dtype=torch.int64,
            is_ragged=True,
            pad_multiple=self.pad_multiple,
            max_length=self.max_length,
        )

    def encode(self, text: str) -> Tensor | None:
        """(length,) int64 ids, or None where the text is empty (the modality is absent)."""
        if self.tokenizer:
            ids = torch.tensor(self._tokenizer.encode(text).ids, dtype=torch.int64)
        else:
            raw = np.frombuffer(text.encode("utf-8"), dtype=np.uint8)
            ids = torch.from_numpy(raw.astype(np.int64) + NUM_SPECIALS)
        return ids[: self.max_length] if len(ids) else None


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
