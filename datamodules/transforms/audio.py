"""Augmentations of waveforms (samples,)."""

from __future__ import annotations

import torch
from torch import Tensor
from torchaudio.functional import add_noise


class RandomGain:
    """Scales a waveform by a random gain; what would exceed [-1, 1] is clipped.

    Args:
        low_db: least gain, in dB.
        high_db: greatest gain, in dB.
    """

    def __init__(self, *, low_db: float = -6.0, high_db: float = 6.0) -> None:
        self.low_db, self.high_db = low_db, high_db

    def __call__(self, waveform: Tensor) -> Tensor:
        gain_db = float(torch.empty(()).uniform_(self.low_db, self.high_db))
        return (waveform * 10 ** (gain_db / 20)).clamp_(-1, 1)


class RandomShift:
    """Moves a waveform in time, earlier or later; what is left empty is silent.

    Args:
        max_samples: greatest shift either way.
    """

    def __init__(self, *, max_samples: int) -> None:
        self.max_samples = max_samples

    def __call__(self, waveform: Tensor) -> Tensor:
        limit = min(self.max_samples, len(waveform) - 1)
        shift = int(torch.randint(-limit, limit + 1, ()))
        shifted = torch.zeros_like(waveform)
        if shift >= 0:
            shifted[shift:] = waveform[: len(waveform) - shift]
        else:
            shifted[:shift] = waveform[-shift:]
        return shifted


class RandomNoise:
    """Adds white noise at a random ratio of the waveform's power to the noise's.

    Args:
        low_snr_db: least ratio, in dB.
        high_snr_db: greatest ratio, in dB.
    """

    def __init__(self, *, low_snr_db: float = 10.0, high_snr_db: float = 40.0) -> None:
        self.low_snr_db, self.high_snr_db = low_snr_db, high_snr_db

    def __call__(self, waveform: Tensor) -> Tensor:
        snr_db = torch.empty(()).uniform_(self.low_snr_db, self.high_snr_db)
        return add_noise(waveform, torch.randn_like(waveform), snr_db).clamp(-1, 1)


class RandomSpeed:
    """Plays a waveform faster or slower by linear interpolation; pitch and length change.

    Args:
        low: least speed (0.9 = 10 % slower and longer).
        high: greatest speed.
        max_samples: cut longer results, None = keep.
    """

    def __init__(
        self, *, low: float = 0.9, high: float = 1.1, max_samples: int | None = None
    ) -> None:
        self.low, self.high, self.max_samples = low, high, max_samples

    def __call__(self, waveform: Tensor) -> Tensor:
        speed = float(torch.empty(()).uniform_(self.low, self.high))
        length = max(1, round(len(waveform) / speed))
        stretched = torch.nn.functional.interpolate(
            waveform[None, None], size=length, mode="linear", align_corners=False
        )
        return stretched[0, 0, : self.max_samples]
