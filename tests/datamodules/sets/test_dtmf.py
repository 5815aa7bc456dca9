"""dial_tone: the standard's frequencies, levels and durations."""

import numpy as np
import pytest

from datamodules.sets.synthesis.dtmf import FREQUENCIES, ToneLine, dial_tone

CLEAN = ToneLine(
    snr_db=(120, 120),
    frequency_error=(0, 0),
    twist_db=(0, 0),
    level_db=(-10, -10),
    seconds=(0.5, 0.5),
)
# ITU-T Q.23, copied from its table: digit → (low, high) in Hz.
Q23 = {
    1: (697, 1209), 2: (697, 1336), 3: (697, 1477),
    4: (770, 1209), 5: (770, 1336), 6: (770, 1477),
    7: (852, 1209), 8: (852, 1336), 9: (852, 1477),
    0: (941, 1336),
}  # fmt: skip


def tone(digit, line=CLEAN, *, seed=0, num_samples=4000):
    rng = np.random.default_rng(seed)
    return dial_tone(digit, line=line, sample_rate=8000, num_samples=num_samples, rng=rng)


def peaks_hertz(clip, count=2):
    """The `count` strongest frequencies, each at least 100 Hz from the others."""
    spectrum = np.abs(np.fft.rfft(clip * np.hanning(len(clip))))
    hertz, found = np.fft.rfftfreq(len(clip), 1 / 8000), []
    for _ in range(count):
        found.append(hertz[spectrum.argmax()])
        spectrum[np.abs(hertz - found[-1]) < 100] = 0
    return sorted(found)


@pytest.mark.parametrize("digit", range(10))
def test_a_clean_tone_holds_the_two_frequencies_of_its_key(digit):
    assert FREQUENCIES[digit] == Q23[digit]
    # The spectrum of 0.5 s has a line every 2 Hz.
    assert peaks_hertz(tone(digit)) == pytest.approx(Q23[digit], abs=2)


def test_level_is_the_power_below_a_full_scale_sine():
    assert 10 * np.log10((tone(5) ** 2).mean() / 0.5) == pytest.approx(-10, abs=0.1)


def test_twist_is_the_power_of_high_over_low():
    clip = tone(5, ToneLine(**{**vars(CLEAN), "twist_db": (4, 4)}))
    spectrum = np.abs(np.fft.rfft(clip))
    high, low = spectrum[round(1336 / 2)], spectrum[round(770 / 2)]
    assert 20 * np.log10(high / low) == pytest.approx(4, abs=0.1)


def test_frequency_error_is_relative_and_separate_for_the_two():
    line = ToneLine(**{**vars(CLEAN), "frequency_error": (0.018, 0.018)})
    assert peaks_hertz(tone(5, line)) == pytest.approx([770 * 1.018, 1336 * 1.018], abs=2)
    line = ToneLine(**{**vars(CLEAN), "frequency_error": (-0.018, 0.018)})
    errors = np.array(
        [np.divide(peaks_hertz(tone(5, line, seed=s)), Q23[5]) - 1 for s in range(20)]
    )
    assert np.abs(errors).max() <= 0.018 + 2 / 770
    assert abs(np.corrcoef(errors.T)[0, 1]) < 0.7


def test_noise_is_as_far_below_the_tone_as_asked():
    line = ToneLine(**{**vars(CLEAN), "snr_db": (-6, -6), "level_db": (-30, -30)})
    power = (tone(5, line, num_samples=4000) ** 2).mean()
    # Tone plus noise of four times its power (6 dB); 4,000 samples estimate it to 5 %.
    assert power == pytest.approx(0.5e-3 * (1 + 10**0.6), rel=0.1)


def test_the_tone_lasts_as_asked_and_starts_anywhere():
    line = ToneLine(**{**vars(CLEAN), "seconds": (0.05, 0.05)})
    starts = set()
    for seed in range(11):
        loud = np.flatnonzero(np.abs(tone(3, line, seed=seed, num_samples=1024)) > 1e-3)
        assert abs(loud[-1] - loud[0] - 400) < 5
        starts.add(loud[0])
    assert len(starts) > 7


def test_clips_stay_in_range_and_a_long_tone_is_cut_to_the_clip():
    clip = tone(3, ToneLine(level_db=(0, 0), snr_db=(0, 0), seconds=(1, 1)), num_samples=101)
    assert clip.shape == (101,)
    assert clip.dtype == np.float32
    assert np.abs(clip).max() <= 1


def test_impossible_lines_are_refused():
    with pytest.raises(ValueError, match=r"data\.degrade\.audio\.snr_db=\[0, -6\]"):
        ToneLine(snr_db=(0, -6))
