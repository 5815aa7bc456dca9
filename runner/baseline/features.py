"""Simple features of each kind of modality, for linear models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.readers import Reader, kind_of
from datamodules.readers.text import BYTE_VOCAB_SIZE, NUM_SPECIALS

_SIDE, _CELL, _THUMB = 32, 4, 8  # pixels a side of a picture, of its cells, of its thumbnail
_ANGLES, _LEVELS = 9, 8  # of the histograms of gradients and of colours
_RATE, _MELS, _PARTS = 16_000, 40, 5
_LARGEST = 4096  # numbers of a tensor; of larger ones means are taken
_TERMS = 50_000  # most frequent words and pairs of words
_SHORT = 2  # words: such texts are compared by their letters
_AT_ONCE = 256  # examples
_FAR = 10.0  # deviations: farther values would decide alone


class Features:
    """The features (n, k) of one modality; a row's length is about one, whatever the kind.

    Texts have TF-IDF of words and pairs of words, of letters where texts are a word or two long;
    pictures a histogram of colours, one of the directions of gradients in each cell (as HOG), and
    a thumbnail; films those of their middle frame; sounds the mean and deviation of log-mel
    spectra over time, and their means over five parts of it. Ids become one-hot, other numbers
    stay as they are. All but texts are standardised. An example that lacks the modality has zeros,
    and where training examples do, one feature more says so.

    Args:
        name: of the modality.
        reader: what decoded it, which knows the rate of a sound; None = nothing is known.
    """

    def __init__(self, name: str, reader: Reader | None) -> None:
        kinds: dict[str, Callable[[Tensor], Tensor]] = {
            "image": pictures,
            "video": films,
            "audio": partial(sounds, rate=getattr(reader, "sample_rate", _RATE)),
        }
        self.reader = reader
        self.is_text = kind_of(name) == "text"
        self.describe = kinds.get(kind_of(name), numbers)
        self.marks_absent = False
        self.model: Any = None

    def fit(self, values: Sequence[Any]) -> Any:
        """Of training examples, each a text or a tensor, None where absent; dense or sparse."""
        here = np.array([value is not None for value in values])
        self.marks_absent = bool(here.any() and not here.all())
        known = self._described([value for value in values if value is not None])
        self.model = self._fitted(known)
        return self._features(known, here)

    def transform(self, values: Sequence[Any]) -> Any:
        """Of other examples."""
        here = np.array([value is not None for value in values])
        return self._features(self._described([v for v in values if v is not None]), here)

    def _features(self, known: Any, here: np.ndarray) -> Any:
        """Of what is known of the examples that are here."""
        from scipy import sparse

        if self.model is None or not len(known):
            width = 0 if self.model is None else len(self.model.get_feature_names_out())
            rows = sparse.csr_matrix((len(here), width), dtype=np.float32)
        else:
            found = self.model.transform(known)
            if not sparse.issparse(found):
                found = (found.clip(-_FAR, _FAR) / np.sqrt(found.shape[1])).astype(np.float32)
            rows = _spread(found, here)
        if not self.marks_absent:
            return rows
        absent = (~here[:, None]).astype(np.float32)
        if sparse.issparse(rows):
            return sparse.hstack([rows, absent], format="csr")
        return np.hstack([rows, absent])

    def _described(self, values: Sequence[Any]) -> Any:
        """What the vectoriser, the encoder or the scaler takes."""
        if self.is_text:
            return [_text(value, self.reader) for value in values]
        if not values:
            return np.zeros((0, 0))
        if len({value.shape for value in values}) > 1:
            return torch.cat([self.describe(value[None]) for value in values]).numpy()
        parts = [values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE)]
        return torch.cat([self.describe(torch.stack(list(part))) for part in parts]).numpy()

    def _fitted(self, known: Any) -> Any:
        """What turns the described values into features; None where there is nothing."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.preprocessing import OneHotEncoder, StandardScaler

        if not len(known):
            return None
        if not self.is_text:
            is_ids = known.dtype == np.int64
            return (OneHotEncoder(handle_unknown="ignore") if is_ids else StandardScaler()).fit(
                known
            )
        words = np.median([len(text.split()) for text in known])
        options = {"sublinear_tf": True, "max_features": _TERMS, "dtype": np.float32}
        letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3), **options)
        pairs = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", **options)
        for vectorizer in (letters,) if words <= _SHORT else (pairs, letters):
            try:
                return vectorizer.fit(known)
            except ValueError:  # the texts hold no words
                continue
        return None


def pictures(images: Tensor) -> Tensor:
    """(n, k) of images (n, c, height, width) of bytes, or of floats in [-1, 1]."""
    pixels = images.float()
    pixels = pixels / 255 if images.dtype == torch.uint8 else (pixels + 1) / 2
    small = F.interpolate(
        pixels, size=(_SIDE, _SIDE), mode="bilinear", align_corners=False, antialias=True
    ).clamp(0, 1)
    levels = (small * _LEVELS).long().clamp(max=_LEVELS - 1)
    colours = torch.stack([(levels == level).float().mean((2, 3)) for level in range(_LEVELS)])
    parts = (colours.movedim(0, 1), F.adaptive_avg_pool2d(small, _THUMB), _gradients(small.mean(1)))
    return torch.cat([part.flatten(1) for part in parts], dim=1)


def _gradients(grey: Tensor) -> Tensor:
    """Per cell how steep pictures (n, height, width) are in each direction, against its neighbours.

    Dalal and Triggs, "Histograms of Oriented Gradients for Human Detection", 2005.
    """
    padded = F.pad(grey[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    dy = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    dx = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    angle = torch.atan2(dy, dx) / torch.pi % 1.0 * _ANGLES
    directions = torch.arange(_ANGLES).view(-1, 1, 1)
    apart = (angle[:, None] - directions).abs()
    shares = (1 - torch.minimum(apart, _ANGLES - apart)).clamp(min=0)  # of the two nearest
    cells = F.avg_pool2d(shares * torch.hypot(dx, dy)[:, None], _CELL)
    around = F.avg_pool2d(cells.square().sum(1, keepdim=True), 3, 1, 1, count_include_pad=False)
    return cells / (around.sqrt() + 1e-2)


def films(frames: Tensor) -> Tensor:
    """(n, k) of the middle ones of frames (n, t, c, height, width)."""
    return pictures(frames[:, frames.shape[1] // 2])


def sounds(samples: Tensor, *, rate: int) -> Tensor:
    """(n, k) of sounds (n, samples) at `rate` per second."""
    size = 2 ** int(np.log2(max(rate * 0.032, 16)))
    padded = F.pad(samples.float(), (0, max(0, size - samples.shape[1])))
    window = torch.hann_window(size)
    spectrum = torch.stft(padded, size, size // 2, window=window, center=False, return_complex=True)
    power = spectrum.abs().square().transpose(1, 2) @ _mel_filters(size, rate)
    levels = (power + 1e-6).log().transpose(1, 2)  # (n, mels, t)
    parts = F.adaptive_avg_pool1d(levels, _PARTS).flatten(1)
    return torch.cat([levels.mean(2), levels.std(2, correction=0), parts], dim=1)


@lru_cache(maxsize=8)
def _mel_filters(size: int, rate: int) -> Tensor:
    from torchaudio.functional import melscale_fbanks

    bins = size // 2 + 1
    return melscale_fbanks(bins, 0.0, rate / 2, min(_MELS, max(bins // 4, 1)), rate)


def numbers(values: Tensor) -> Tensor:
    """(n, k) of anything: the numbers, or means of as many."""
    flat = values.flatten(1)
    if flat.dtype == torch.int64:
        return flat
    return (
        flat.float() if flat.shape[1] <= _LARGEST else F.adaptive_avg_pool1d(flat.float(), _LARGEST)
    )


def _text(value: Any, reader: Reader | None) -> str:
    """The text of a cell: itself, bytes, a file, or token ids."""
    if isinstance(value, Path):
        value = value.read_bytes()
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        return value
    ids = torch.as_tensor(value)
    if getattr(reader, "vocab_size", 0) == BYTE_VOCAB_SIZE:
        return bytes((ids - NUM_SPECIALS).clamp(0, 255).tolist()).decode("utf-8", "replace")
    return " ".join(map(str, ids.tolist()))


def _spread(found: Any, here: np.ndarray) -> Any:
    """Rows of the examples that have the modality among rows of zeros."""
    from scipy import sparse

    if here.all():
        return found
    if sparse.issparse(found):
        places = np.flatnonzero(here)
        ones = np.ones(len(places), dtype=np.float32)
        shape = (len(here), len(places))
        return sparse.csr_matrix((ones, (places, np.arange(len(places)))), shape=shape) @ found
    rows = np.zeros((len(here), found.shape[1]), dtype=np.float32)
    rows[here] = found
    return rows
