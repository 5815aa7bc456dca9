"""Augmentations of our own: each changes what it says and nothing else."""

import pytest
import torch

from datamodules.readers.text import TextReader
from datamodules.transforms.audio import RandomGain, RandomNoise, RandomShift, RandomSpeed
from datamodules.transforms.text import ByteNoise, Lowercase, RandomCase


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_gain_is_in_decibels_and_clips():
    wave = torch.tensor([0.1, -0.2, 0.9])
    louder = RandomGain(low_db=20, high_db=20)(wave)
    torch.testing.assert_close(louder, torch.tensor([1.0, -1.0, 1.0]))
    gains = [RandomGain(low_db=-6, high_db=6)(wave)[0].item() / 0.1 for _ in range(50)]
    assert 10 ** (-6 / 20) <= min(gains) < 0.75
    assert 1.3 < max(gains) <= 10 ** (6 / 20)


def test_shift_moves_both_ways_and_fills_with_silence():
    wave = torch.arange(1.0, 8.0)
    seen = set()
    for _ in range(100):
        shifted = RandomShift(max_samples=2)(wave).tolist()
        kept = [value for value in shifted if value]
        assert len(shifted) == 7
        assert kept in ([*wave[k:].tolist()] for k in range(3)) or kept in (
            wave[: 7 - k].tolist() for k in range(3)
        )
        seen.add((shifted[0], shifted[-1]))
    assert seen == {(1, 7), (0, 6), (0, 5), (2, 0), (3, 0)}


def test_shift_of_a_short_clip_keeps_at_least_a_sample():
    assert all(RandomShift(max_samples=11)(torch.ones(3)).any() for _ in range(50))


def test_noise_is_as_far_below_the_waveform_as_asked():
    wave = 0.1 * torch.sin(torch.arange(8009.0))
    noise = RandomNoise(low_snr_db=6, high_snr_db=6)(wave) - wave
    snr_db = 10 * torch.log10(wave.square().mean() / noise.square().mean())
    assert snr_db.item() == pytest.approx(6, abs=0.2)


def test_noise_on_silence_is_silence():
    assert not RandomNoise()(torch.zeros(11)).any()


def test_speed_changes_length_and_pitch():
    wave = torch.sin(torch.arange(1000.0) * 2 * torch.pi * 0.05)
    faster = RandomSpeed(low=2.0, high=2.0)(wave)
    assert len(faster) == 500
    assert torch.fft.rfft(faster).abs().argmax().item() == pytest.approx(50, abs=1)
    assert len(RandomSpeed(low=0.5, high=0.5, max_samples=1013)(wave)) == 1013


def test_byte_noise_replaces_and_drops_at_its_rates():
    ids = torch.full((4001,), 10)
    replaced = ByteNoise(replace=0.2, drop=0.0)(ids)
    assert len(replaced) == 4001
    # Four standard deviations of a binomial share are 0.025; one random byte in 256 is the same.
    assert (replaced != 10).float().mean().item() == pytest.approx(0.2, abs=0.026)
    assert replaced.min() >= 6
    assert replaced.max() <= 261
    assert len(ByteNoise(replace=0.0, drop=0.2)(ids)) / 4001 == pytest.approx(0.8, abs=0.026)
    assert 262 < ByteNoise(replace=1.0, drop=0.0, vocab_size=1009)(ids).max() < 1009


def test_byte_noise_leaves_at_least_one():
    assert ByteNoise(replace=0.0, drop=1.0)(torch.tensor([7, 8, 9])).tolist() == [7]


def ids_of(text):
    return TextReader(max_length=200).encode(text)


def text_of(ids):
    return bytes((ids - 6).tolist()).decode("utf-8")


def test_small_letters_in_any_script():
    assert text_of(Lowercase()(ids_of("ÀB Ωmega ПРИВЕТ ß 7"))) == "àb ωmega привет ß 7"


def test_small_letters_leave_a_cut_character_and_special_tokens_be():
    cut = ids_of("Aé")[:2]
    assert torch.equal(Lowercase()(cut), torch.tensor([ids_of("a")[0], cut[1]]))


def test_case_changes_at_its_rates():
    change = RandomCase(upper=0.2, lower=0.3)
    found = [text_of(change(ids_of("aBß"))) for _ in range(2003)]
    assert set(found) == {"ABSS", "abß", "aBß"}
    # Four standard deviations of a binomial share.
    assert found.count("ABSS") / 2003 == pytest.approx(0.2, abs=0.036)
    assert found.count("abß") / 2003 == pytest.approx(0.3, abs=0.041)


def test_case_of_a_tokenizer_s_ids_is_refused():
    with pytest.raises(ValueError, match="tokenizer's ids"):
        Lowercase()(torch.tensor([300]))
    with pytest.raises(ValueError, match=r"data\.text\.tokenizer=bytes"):
        RandomCase(vocab_size=1009)
    with pytest.raises(ValueError, match="expected two chances"):
        RandomCase(upper=0.7, lower=0.7)
