"""Audio files → mono waveforms at one sample rate."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from pathlib import Path

import soundfile
import torch
from torch import Tensor
from torchaudio.functional import resample

from datamodules.collate import Field

_UNKNOWN_SIZE = 0xFFFFFFFF  # what a program writes that streams a WAV and cannot go back


@dataclass(frozen=True)
class AudioOptions:
    """What a sound is to the model (`data.audio` in the config).

    Args:
        sample_rate: in Hz; files at another rate are resampled.
        max_seconds: longer files are cut to their beginning.
        pad_multiple: batches are padded to a multiple of this many samples.
    """

    sample_rate: int
    max_seconds: float
    pad_multiple: int = 1

    def __post_init__(self) -> None:
        if self.sample_rate < 1:
            raise ValueError(f"data.audio.sample_rate={self.sample_rate}, expected a rate in Hz.")
        if self.max_samples < 1:
            raise ValueError(f"data.audio.max_seconds={self.max_seconds} is less than a sample.")

    @property
    def max_samples(self) -> int:
        """The longest waveform, in samples."""
        return round(self.max_seconds * self.sample_rate)

    def field(self) -> Field:
        """For the collator."""
        return Field(
            (), is_ragged=True, pad_multiple=self.pad_multiple, max_length=self.max_samples
        )


def read_audio(path: Path, options: AudioOptions) -> Tensor:
    """Decodes what libsndfile knows (WAV, FLAC, OGG, MP3 …); channels are averaged.

    Returns:
        (samples,) float32, nominally in [-1, 1]; at most `options.max_samples`.

    Raises:
        ValueError: the file is not audio, is cut short, holds no samples, or holds NaN.
    """
    try:
        _refuse_short_wav(path)
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            # One filter length more than asked for: resampling needs what follows the cut.
            wanted = int(options.max_seconds * rate) + 64 * -(-rate // options.sample_rate)
            frames = torch.from_numpy(file.read(wanted, dtype="float32", always_2d=True))
    except (soundfile.LibsndfileError, OSError, ValueError) as error:
        size = path.stat().st_size if path.exists() else 0
        what = str(error) if size else "the file has zero bytes"
        raise ValueError(f"Cannot read the audio {path}: {what}. Replace or remove it.") from error
    waveform = frames.mean(dim=1)
    if len(waveform) == 0:
        raise ValueError(f"The audio {path} holds no samples: replace or remove it.")
    if not waveform.isfinite().all():
        raise ValueError(f"The audio {path} holds NaN or infinity: replace or remove it.")
    if rate != options.sample_rate:
        shared = gcd(rate, options.sample_rate)
        waveform = resample(waveform, rate // shared, options.sample_rate // shared)
    return waveform[: options.max_samples].clamp(-1, 1)


def _refuse_short_wav(path: Path) -> None:
    """libsndfile silently returns what is left of a WAV whose end is missing."""
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return
        file_size = path.stat().st_size
        while len(chunk := file.read(8)) == 8:
            size = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"data":
                held = file_size - file.tell()
                if size not in (0, _UNKNOWN_SIZE) and held < size:
                    raise ValueError(
                        f"it is cut short, its header promises {size} bytes of sound "
                        f"and the file holds {held}"
                    )
                return
            file.seek(size + size % 2, 1)
        raise ValueError("it is cut short before its sound begins")
