"""read_audio: mono, one rate, and no file that is silently shorter than it says."""

import numpy as np
import pytest
import soundfile
import torch

from datamodules.readers.audio import AudioReader, read_audio

OPTIONS = AudioReader(sample_rate=8000, max_seconds=0.5)


def sine(hertz, *, rate, seconds=0.1):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def loudest_hertz(waveform, *, rate):
    return torch.fft.rfft(waveform).abs().argmax().item() * rate / len(waveform)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_samples_of_any_format_come_as_float_in_unit_range(tmp_path, subtype):
    wave = sine(440, rate=8000)
    soundfile.write(tmp_path / "a.wav", wave, 8000, subtype=subtype)
    read = read_audio(tmp_path / "a.wav", OPTIONS)
    assert read.dtype == torch.float32
    # Half a step of 16 bits.
    torch.testing.assert_close(read, torch.from_numpy(wave).float(), atol=2**-15, rtol=0)


def test_channels_are_averaged(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.tile([0.5, -0.25], (101, 1)), 8000)
    torch.testing.assert_close(read_audio(tmp_path / "a.wav", OPTIONS), torch.full((101,), 0.125))


def test_another_rate_is_resampled_to_the_same_pitch_and_duration(tmp_path):
    soundfile.write(tmp_path / "a.flac", sine(1000, rate=44100), 44100)
    read = read_audio(tmp_path / "a.flac", OPTIONS)
    assert len(read) == 800
    assert loudest_hertz(read, rate=8000) == pytest.approx(1000)


@pytest.mark.parametrize("rate", [8000, 44100])
def test_long_files_are_cut_to_their_beginning(tmp_path, rate):
    wave = np.concatenate([sine(1000, rate=rate, seconds=0.5), np.zeros(rate)])
    soundfile.write(tmp_path / "a.wav", wave, rate)
    read = read_audio(tmp_path / "a.wav", OPTIONS)
    assert len(read) == 4000
    assert read[-40:].abs().max() > 0.4


def test_a_wav_that_is_cut_short_is_named(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, sine(440, rate=8000), 8000)
    path.write_bytes(path.read_bytes()[:-101])
    with pytest.raises(ValueError, match=r"a\.wav: it is cut short.* 1600 bytes.* holds 1499"):
        read_audio(path, OPTIONS)


def test_a_wav_cut_before_its_sound_is_named(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, sine(440, rate=8000), 8000)
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(ValueError, match=r"a\.wav: it is cut short"):
        read_audio(path, OPTIONS)


def test_chunks_after_the_sound_are_allowed(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, sine(440, rate=8000), 8000)
    path.write_bytes(path.read_bytes() + b"LIST\x04\x00\x00\x00INFO")
    assert len(read_audio(path, OPTIONS)) == 800


def test_chunks_of_odd_length_before_the_sound_are_skipped_with_their_padding(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, sine(440, rate=8000), 8000)
    raw = path.read_bytes()
    path.write_bytes(raw[:12] + b"note\x03\x00\x00\x00abc\x00" + raw[12:-101])
    with pytest.raises(ValueError, match=r"1600 bytes of sound and the file holds 1499"):
        read_audio(path, OPTIONS)


def test_a_cut_leaves_no_trace_in_a_resampled_file(tmp_path):
    soundfile.write(tmp_path / "a.wav", sine(1000, rate=44100, seconds=1.0), 44100)
    cut = read_audio(tmp_path / "a.wav", OPTIONS)
    whole = read_audio(tmp_path / "a.wav", AudioReader(sample_rate=8000, max_seconds=2.0))
    torch.testing.assert_close(cut, whole[: len(cut)])


def test_a_file_of_zero_bytes_is_named(tmp_path):
    (tmp_path / "a.wav").touch()
    with pytest.raises(ValueError, match=r"a\.wav: the file has zero bytes"):
        read_audio(tmp_path / "a.wav", OPTIONS)


def test_a_file_without_samples_is_named(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(0), 8000)
    with pytest.raises(ValueError, match=r"a\.wav holds no samples"):
        read_audio(tmp_path / "a.wav", OPTIONS)


def test_nan_in_a_file_is_named(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([0, np.nan, 0]), 8000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"a\.wav holds NaN"):
        read_audio(tmp_path / "a.wav", OPTIONS)


def test_a_file_that_is_no_audio_is_named(tmp_path):
    (tmp_path / "a.wav").write_text("not a sound")
    with pytest.raises(ValueError, match=r"Cannot read the audio .*a\.wav"):
        read_audio(tmp_path / "a.wav", OPTIONS)


@pytest.mark.parametrize("options", [{"sample_rate": 0}, {"max_seconds": 0.0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=rf"data\.audio\.{next(iter(options))}"):
        AudioReader(**({"sample_rate": 8000, "max_seconds": 1.0} | options))


def test_training_takes_any_part_of_a_file_and_evaluation_the_first(tmp_path):
    path = tmp_path / "ramp.wav"
    soundfile.write(path, np.arange(10) / 16, 8000, subtype="FLOAT")
    options = AudioReader(sample_rate=8000, max_seconds=7 / 8000, crop="random")
    rng = np.random.default_rng(0)
    drawn = [options.decode(path, where="", rng=rng) * 16 for _ in range(40)]
    assert {int(part[0]) for part in drawn} == {0, 1, 2, 3}
    assert all(part.tolist() == [part[0] + n for n in range(7)] for part in drawn)
    assert options.decode(path, where="")[0] == 0
    with pytest.raises(ValueError, match=r"data\.audio\.crop='last'"):
        AudioReader(sample_rate=8000, max_seconds=1.0, crop="last")


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_the_content_of_a_file_reads_as_the_file(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, sine(440, rate=8000), 8000)
    assert torch.equal(read_audio(path.read_bytes(), OPTIONS), read_audio(path, OPTIONS))
    with pytest.raises(ValueError, match="audio of row 7: the file has zero bytes"):
        read_audio(b"", OPTIONS, where="row 7")


def test_the_content_of_a_wav_that_is_cut_short_is_named(tmp_path):
    soundfile.write(tmp_path / "a.wav", sine(440, rate=8000), 8000)
    raw = (tmp_path / "a.wav").read_bytes()
    with pytest.raises(ValueError, match=r"audio of row 7: it is cut short.* 1600 bytes"):
        read_audio(raw[:-101], OPTIONS, where="row 7")


def test_a_wrong_extension_does_not_matter(tmp_path):
    soundfile.write(tmp_path / "a.flac", sine(440, rate=8000), 8000)
    path = (tmp_path / "a.flac").rename(tmp_path / "a.wav")
    assert len(read_audio(path, OPTIONS)) == 800


def test_more_samples_than_memory_should_take_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.readers.audio._MAX_VALUES", 5000)
    soundfile.write(tmp_path / "a.wav", np.zeros((4000, 2)), 8000)
    with pytest.raises(ValueError, match=r"a\.wav: 2 channels of 8,000 samples a second are more"):
        read_audio(tmp_path / "a.wav", OPTIONS)
    soundfile.write(tmp_path / "a.wav", np.zeros(4000), 8000)
    assert len(read_audio(tmp_path / "a.wav", OPTIONS)) == 4000


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([(8000, 0.61)], {"sample_rate": 8000, "max_seconds": 0.7}),
        ([(8000, 0.2), (44100, 0.3)], {"sample_rate": 16000, "max_seconds": 0.3}),
        ([(8000, 0.2), (11025, 12.0)] * 9, {"sample_rate": 11025, "max_seconds": 10.0}),
        ([], {"sample_rate": 16000, "max_seconds": 1.0}),
    ],
)
def test_rate_and_length_are_fitted_to_the_files(tmp_path, files, expected):
    cells = []
    for number, (rate, seconds) in enumerate(files):
        cells.append(tmp_path / f"{number}.wav")
        soundfile.write(cells[-1], np.zeros(round(rate * seconds)), rate)
    (tmp_path / "broken.wav").write_bytes(b"x")
    cells += [tmp_path / "broken.wav", tmp_path / "none.wav", None]
    found = AudioReader.fit({"sample_rate": None, "max_seconds": None}, [cells])
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("content", [False, True])
def test_sixteen_bit_wav_is_what_libsndfile_reads(tmp_path, channels, content):
    path = tmp_path / "a.wav"
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, (701, channels), dtype=np.int16)
    soundfile.write(path, samples, 8000)
    theirs = soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1)
    ours = read_audio(path.read_bytes() if content else path, OPTIONS)
    torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=0, atol=1e-7)


def test_a_rate_that_no_sound_has_is_not_resampled(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(101), 8000)
    raw = bytearray(path.read_bytes())
    raw[24:28] = (2**31 - 1).to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"a\.wav: 2,147,483,647 samples a second, which is not"):
        read_audio(path, OPTIONS)
