"""Audio files → mono waveforms at one sample rate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from math import ceil, isqrt
from pathlib import Path
from struct import unpack
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

import numpy as np
import soundfile
import torch
from torch import Tensor
from torchaudio.functional import resample

from datamodules.readers.field import Field
from datamodules.readers.pyav import is_film, opened, read_samples
from datamodules.readers.reader import Cell, Reader, sample, span

if TYPE_CHECKING:
    from av.container import InputContainer

_SAMPLE = 256  # files whose headers are looked at
_RATE = 16_000  # Hz; `fit` chooses no higher one: speech needs no more
_SECONDS = 10.0  # `fit` chooses no longer clips
_MAX_VALUES = 2**28  # samples × channels that are decoded at most: 1 GiB
_MAX_FILTER = 2**22  # product of the rates' smallest terms, which the resampling filter grows with
_UNKNOWN_SIZE = 0xFFFFFFFF  # what a program writes that streams a WAV and cannot go back


@dataclass(frozen=True)
class AudioReader(Reader):
    """What a sound is to the model (`data.audio` in the config).

    Args:
        sample_rate: in Hz; files at another rate are resampled.
        max_seconds: longer files are cut.
        pad_multiple: batches are padded to a multiple of this many samples.
        crop: which part of a longer file stays: "first", or "random" (in training; in evaluation
            the first).
        max_rate: highest rate of a file in Hz; a header may claim any.
    """

    fitted: ClassVar[tuple[str, ...]] = ("sample_rate", "max_seconds")
    suffixes: ClassVar[frozenset[str]] = frozenset(
        {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au"}
    )

    sample_rate: int
    max_seconds: float
    pad_multiple: int = 1
    crop: str = "first"
    max_rate: int = 768_000

    def __post_init__(self) -> None:
        if self.sample_rate < 1:
            raise ValueError(f"data.audio.sample_rate={self.sample_rate}, expected a rate in Hz.")
        if self.crop not in ("first", "random"):
            raise ValueError(f"data.audio.crop={self.crop!r}, expected first or random.")
        if self.max_samples < 1:
            raise ValueError(f"data.audio.max_seconds={self.max_seconds} is less than a sample.")

    @property
    def max_samples(self) -> int:
        """The longest waveform, in samples."""
        return round(self.max_seconds * self.sample_rate)

    def field(self) -> Field:
        return Field(
            (), is_ragged=True, pad_multiple=self.pad_multiple, max_length=self.max_samples
        )

    @property
    def draws(self) -> bool:
        return self.crop == "random"

    def decode(
        self, cell: Cell, *, where: str, rng: np.random.Generator | None = None
    ) -> Tensor | None:
        """(samples,) of a sound, or of the sound track of a film; None for a silent film."""
        if is_film(cell):
            return read_sound(cell, self, where=where, rng=rng)
        return read_audio(cell, self, where=where, rng=rng)

    def length_of(self, cell: Cell) -> int:
        header = _header(cell)
        return min(round(header[1] * self.sample_rate), self.max_samples) if header else 0

    @classmethod
    def fit(cls, given: Mapping[str, Any], columns: Sequence[Sequence[Cell]]) -> dict[str, Any]:
        """The highest rate of the files up to 16 kHz; a length that 95 % of them keep to."""
        headers = _headers(columns)
        rates = [rate for rate, _ in headers] or [_RATE]
        seconds = np.quantile([length for _, length in headers] or [1.0], 0.95)
        found = {
            "sample_rate": min(max(rates), _RATE),
            "max_seconds": min(max(ceil(10 * seconds) / 10, 0.1), _SECONDS),
        }
        return dict(given) | {
            name: value for name, value in found.items() if given.get(name) is None
        }

    @classmethod
    def describe(cls, columns: Sequence[Sequence[Cell]]) -> str:
        headers = _headers(columns)
        if not headers:
            return ""
        rates = ", ".join(f"{rate:,}" for rate, _ in Counter(r for r, _ in headers).most_common())
        return f"{rates} Hz, {span([seconds for _, seconds in headers], 's')}"


def read_audio(
    source: Path | bytes,
    options: AudioReader,
    *,
    where: str = "",
    rng: np.random.Generator | None = None,
) -> Tensor:
    """Decodes what libsndfile knows (WAV, FLAC, OGG, MP3 …); channels are averaged.

    Args:
        source: a file, or its content.
        options: what it is to become.
        where: a name for content, for messages.
        rng: draws the part that is read; None = the beginning.

    Returns:
        (samples,) float32, nominally in [-1, 1]; at most `options.max_samples`.

    Raises:
        ValueError: the file is not audio, is cut short, holds no samples, or holds NaN.
    """
    name = source if isinstance(source, Path) else f"of {where}"
    num_bytes = 0
    try:
        with source.open("rb") if isinstance(source, Path) else BytesIO(source) as raw:
            num_bytes = raw.seek(0, 2)
            found = _read_wav(raw, num_bytes, options, rng)
        is_fixed = found is not None  # 16 bits lie in [-1, 1) and are never NaN
        frames, rate = found or _read_any(source, options, rng)
    except FileNotFoundError as error:
        raise ValueError(
            f"Cannot read the audio {name}: there is no such file. Replace or remove it."
        ) from error
    except (soundfile.LibsndfileError, OSError, ValueError, TypeError) as error:
        what = str(error).rstrip(".") if num_bytes else "the file has zero bytes"
        raise ValueError(f"Cannot read the audio {name}: {what}. Replace or remove it.") from error
    waveform = torch.from_numpy(frames[:, 0] if frames.shape[1] == 1 else frames.mean(axis=1))
    if len(waveform) == 0:
        raise ValueError(f"The audio {name} holds no samples: replace or remove it.")
    if not is_fixed and not waveform.isfinite().all():
        raise ValueError(f"The audio {name} holds NaN or infinity: replace or remove it.")
    if is_fixed and rate == options.sample_rate:
        return waveform[: options.max_samples]
    return to_rate(waveform, rate, options, name=name)


def read_sound(
    file: Path | bytes,
    options: AudioReader,
    *,
    where: str = "",
    rng: np.random.Generator | None = None,
) -> Tensor | None:
    """The sound track of a video from its first picture on, (samples,); None where it has none.

    Args:
        file: a path, or the contents of a file.
        options: of the sound.
        where: a name for contents, for messages.
        rng: draws the part that is read; None = the beginning.

    Raises:
        ValueError: the file is no video, or is cut short.
    """
    with opened(file, where) as container:
        if not container.streams.audio:
            return None
        stream = (*container.streams.video, *container.streams.audio)[0]
        start = float((stream.start_time or 0) * stream.time_base)
        if rng is not None and container.duration:
            spare = container.duration / 1e6 - options.max_seconds
            start += max(spare, 0) * float(rng.random())
        return read_track(container, options, start=start, seconds=options.max_seconds)


def read_track(
    container: InputContainer, options: AudioReader, *, start: float, seconds: float
) -> Tensor | None:
    """The first sound track from `start` on, at most as long as `seconds` and the options say."""
    rate = container.streams.audio[0].rate
    length = round(min(seconds, options.max_seconds) * rate)
    wanted = length + 64 * -(-rate // options.sample_rate)  # what the resampling filter looks at
    samples = read_samples(container, start=start, count=wanted)
    if samples is None:
        return None
    return to_rate(samples, rate, options)[: -(-length * options.sample_rate // rate)]


def to_rate(waveform: Tensor, rate: int, options: AudioReader, *, name: Path | str = "") -> Tensor:
    """(samples,) at `rate` Hz → at most `options.max_samples` at the options' rate, in [-1, 1]."""
    if not 0 < rate <= options.max_rate:
        raise ValueError(f"The audio {name} has {_too_fast(rate, options)}.")
    if rate != options.sample_rate:
        ratio = Fraction(rate, options.sample_rate)
        if ratio.numerator * ratio.denominator > _MAX_FILTER:
            # Very near the rate, where the exact filter would take gigabytes.
            ratio = ratio.limit_denominator(isqrt(int(_MAX_FILTER / ratio)))
        waveform = resample(waveform, ratio.numerator, ratio.denominator)
    return waveform[: options.max_samples].clamp(-1, 1)


def _too_fast(rate: int, options: AudioReader) -> str:
    return (
        f"{rate:,} samples a second, which is not between 1 and "
        f"data.audio.max_rate={options.max_rate}"
    )


def _headers(columns: Sequence[Sequence[Cell]]) -> list[tuple[int, float]]:
    """(rate in Hz, seconds) of a sample of the files."""
    headers = (_header(cell) for cell in sample(columns, _SAMPLE))
    return [header for header in headers if header]


def _header(cell: Cell) -> tuple[int, float] | None:
    """(rate in Hz, seconds), None where there is no sound."""
    if cell is None:
        return None
    if is_film(cell):
        try:
            with opened(cell) as container:
                return container.streams.audio[0].rate, (container.duration or 0) / 1e6
        except (ValueError, IndexError):
            return None
    try:
        info = soundfile.info(str(cell) if isinstance(cell, Path) else BytesIO(cell))
    except (soundfile.LibsndfileError, OSError, TypeError):
        return None
    return info.samplerate, info.frames / info.samplerate


def _part(
    options: AudioReader, *, rate: int, channels: int, frames: int, rng: np.random.Generator | None
) -> tuple[int, int]:
    """(first, number) of the frames to read: the beginning, or a part that `rng` draws.

    One filter length more than is kept, as resampling needs what follows.
    """
    if not 0 < rate <= options.max_rate:
        raise ValueError(_too_fast(rate, options))
    kept = int(options.max_seconds * rate)
    wanted = kept + 64 * -(-rate // options.sample_rate)
    if min(wanted, frames) * channels > _MAX_VALUES:
        raise ValueError(
            f"{channels} channels of {rate:,} samples a second are more than the "
            f"{_MAX_VALUES:,} samples that are decoded"
        )
    first = int(rng.integers(frames - kept + 1)) if rng is not None and frames > kept else 0
    return first, min(wanted, frames - first)


def _read_any(
    source: Path | bytes, options: AudioReader, rng: np.random.Generator | None
) -> tuple[np.ndarray, int]:
    """(frames, channels) float32, and the rate."""
    # By name, libsndfile reads without calling back into Python.
    with soundfile.SoundFile(source if isinstance(source, Path) else BytesIO(source)) as file:
        rate, channels = file.samplerate, file.channels
        first, count = _part(options, rate=rate, channels=channels, frames=file.frames, rng=rng)
        if first:
            file.seek(first)
        return file.read(count, dtype="float32", always_2d=True), rate


def _read_wav(
    file: BinaryIO, file_size: int, options: AudioReader, rng: np.random.Generator | None
) -> tuple[np.ndarray, int] | None:
    """16-bit WAV, as most short clips are, in a quarter of libsndfile's time; None = ask that.

    Raises:
        ValueError: the file is cut short, of which libsndfile would silently return what is left.
    """
    file.seek(0)
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    form = b""
    while len(chunk := file.read(8)) == 8:
        size = int.from_bytes(chunk[4:], "little")
        if chunk[:4] == b"data":
            held = file_size - file.tell()
            if size not in (0, _UNKNOWN_SIZE) and held < size:
                raise ValueError(
                    f"it is cut short, its header promises {size} bytes of sound "
                    f"and the file holds {held}"
                )
            if len(form) < 16 or size in (0, _UNKNOWN_SIZE):
                return None
            tag, channels, rate, _, width, bits = unpack("<HHIIHH", form[:16])
            if (tag, bits, width) != (1, 16, 2 * channels) or not 0 < rate < 2**20:
                return None
            first, count = _part(
                options, rate=rate, channels=channels, frames=size // width, rng=rng
            )
            file.seek(first * width, 1)
            values = np.frombuffer(file.read(count * width), "<i2").astype(np.float32)
            values *= 1 / 32768
            return values.reshape(-1, channels), rate
        if chunk[:4] == b"fmt ":
            form = file.read(size)
            file.seek(size % 2, 1)
        else:
            file.seek(size + size % 2, 1)
    raise ValueError("it is cut short before its sound begins")
