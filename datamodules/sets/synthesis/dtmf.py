"""The telephone's dial tones (DTMF), as a line delivers them.

ITU-T Recommendation Q.23 assigns every key one frequency of a low and one of a high group; the
sender's frequencies may be off by 1.8 %. Q.24 lists what receivers must live with: a difference in
power between the two (twist), a range of levels, tones of 40 ms, noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, pi

import numpy as np

from datamodules.loading.seeding import check_range

LOW_HZ = (697.0, 770.0, 852.0, 941.0)
HIGH_HZ = (1209.0, 1336.0, 1477.0)
KEYPAD = ("123", "456", "789", "*0#")
# (low, high) in Hz of the digits 0 … 9
FREQUENCIES = tuple(
    (LOW_HZ[row], HIGH_HZ[KEYPAD[row].index(digit)])
    for digit in "0123456789"
    for row in range(len(KEYPAD))
    if digit in KEYPAD[row]
)


@dataclass(frozen=True)
class ToneLine:
    """What the sender and the line do to a tone; every pair is the range of a uniform draw.

    Args:
        snr_db: power of the tone over power of the noise, while the tone lasts, in dB.
        frequency_error: of each of the two frequencies, relative (Q.23 allows ±0.018).
        twist_db: power of the high over power of the low frequency, in dB (Q.24: -8 … 4).
        level_db: power of the tone relative to a full-scale sine, in dB.
        seconds: duration of the tone (Q.24: from 0.04).
    """

    snr_db: tuple[float, float] = (-13.0, -3.0)
    frequency_error: tuple[float, float] = (-0.018, 0.018)
    twist_db: tuple[float, float] = (-8.0, 4.0)
    level_db: tuple[float, float] = (-30.0, -20.0)
    seconds: tuple[float, float] = (0.04, 0.1)

    def __post_init__(self) -> None:
        limits = {
            "snr_db": (-inf, inf),
            "frequency_error": (-0.5, 0.5),
            "twist_db": (-inf, inf),
            "level_db": (-inf, 0),
            "seconds": (0, inf),
        }
        for name, (low, high) in limits.items():
            check_range(f"data.degrade.audio.{name}", getattr(self, name), low=low, high=high)


def dial_tone(
    digit: int,
    *,
    line: ToneLine,
    sample_rate: int,
    num_samples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """The tone of a digit at a random place in a clip of noise.

    Args:
        digit: 0 … 9.
        line: ranges to draw from.
        sample_rate: in Hz, above twice the highest frequency.
        num_samples: length of the clip.
        rng: source of all randomness.

    Returns:
        (num_samples,) float32 in [-1, 1].
    """
    snr, twist, level, seconds = (
        rng.uniform(*bounds) for bounds in (line.snr_db, line.twist_db, line.level_db, line.seconds)
    )
    hertz = np.array(FREQUENCIES[digit]) * (1 + rng.uniform(*line.frequency_error, size=2))
    phases = rng.uniform(0, 2 * pi, size=2)
    length = min(round(seconds * sample_rate), num_samples)
    start = rng.integers(num_samples - length + 1)
    # Powers of the low and the high sine that differ by the twist and add up to `power`.
    power = 0.5 * 10 ** (level / 10)
    ratio = 10 ** (twist / 10)
    powers = power * np.array([1, ratio]) / (1 + ratio)
    time = np.arange(length) / sample_rate
    waves = np.sin(2 * pi * hertz[:, None] * time + phases[:, None])
    clip = rng.normal(scale=(power * 10 ** (-snr / 10)) ** 0.5, size=num_samples)
    clip[start : start + length] += np.sqrt(2 * powers) @ waves
    return clip.clip(-1, 1).astype(np.float32)
