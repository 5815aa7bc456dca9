"""Waveforms and spectrograms as byte arrays, whatever a batch was padded to."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torchaudio.transforms import MelSpectrogram

from perceiver.adapters import SpectrogramAdapter, WaveformAdapter
from perceiver.positions import FourierPositions

HOP, BINS = 20, 6
absolute = partial(FourierPositions, num_bands=3, absolute=True)


def mel() -> MelSpectrogram:
    return MelSpectrogram(
        sample_rate=1000, n_fft=64, hop_length=HOP, n_mels=BINS, pad_mode="constant"
    )


def spectrograms(**options) -> SpectrogramAdapter:
    settings = {
        "transform": mel(),
        "num_bins": BINS,
        "hop_length": HOP,
        "sample_rate": 1000,
        "max_seconds": 0.5,
        "position": None,
    }
    return SpectrogramAdapter(**(settings | options))


def padded(*clips: torch.Tensor, to: int, value: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips of several lengths as one batch with its mask."""
    waveform = torch.full((len(clips), to), value, dtype=clips[0].dtype)
    mask = torch.zeros(len(clips), to, dtype=torch.bool)
    for row, clip in enumerate(clips):
        waveform[row, : len(clip)] = clip
        mask[row, : len(clip)] = True
    return waveform, mask


def test_waveform_tokens_are_runs_of_samples_the_last_one_filled_with_zeros():
    waveform = torch.randn(2, 13)
    adapter = WaveformAdapter(
        samples_per_token=5, sample_rate=1000, max_seconds=0.013, position=None
    )
    tokens = adapter(waveform).dense()
    full = torch.cat([waveform, torch.zeros(2, 2)], 1)
    expected = torch.stack([full[:, 0:5], full[:, 5:10], full[:, 10:15]], 1)
    assert_close(tokens, expected, rtol=0, atol=0)


@pytest.mark.parametrize(("length", "tokens"), [(1, 1), (5, 1), (6, 2), (10, 2), (11, 3)])
def test_a_waveform_token_is_real_if_one_of_its_samples_is(length, tokens):
    adapter = WaveformAdapter(samples_per_token=5, sample_rate=1000, max_seconds=1.0, position=None)
    waveform, mask = padded(torch.randn(length), to=17)
    assert adapter(waveform, mask).mask.sum().item() == tokens


def test_padding_a_waveform_changes_none_of_its_tokens():
    adapter = WaveformAdapter(
        samples_per_token=5, sample_rate=1000, max_seconds=0.1, position=absolute
    )
    clip = torch.randn(13)
    alone = adapter(clip[None]).dense()
    segment = adapter(*padded(clip, torch.randn(31), to=32, value=9.0))
    assert segment.mask[0].tolist() == [True] * 3 + [False] * 4
    assert_close(segment.dense()[:1, :3], alone, rtol=0, atol=0)


def test_waveforms_are_cut_into_as_many_tokens_as_positions_were_made_for():
    adapter = WaveformAdapter(
        samples_per_token=7, sample_rate=1000, max_seconds=0.05, position=absolute
    )
    assert adapter(torch.randn(2, 50)).shape == adapter.position.shape == (8,)
    with pytest.raises(ValueError, match="input is 9 long but its positions end at 8"):
        adapter(torch.randn(2, 57))


def test_a_spectrogram_token_is_a_frame_of_the_normalised_log_of_the_mel_spectrogram():
    waveform = torch.randn(2, 113)
    tokens = spectrograms()(waveform).dense()
    expected = torch.log(mel()(waveform) + 1e-6)
    for clip in expected:
        clip -= clip.mean()
        clip /= clip.var(unbiased=False).add(1e-5).sqrt()
    assert tuple(tokens.shape) == (2, 1 + 113 // HOP, BINS)
    assert_close(tokens, expected.transpose(1, 2))


def test_the_log_is_left_as_it_is_where_it_is_not_to_be_normalised():
    waveform = torch.randn(2, 113)
    tokens = spectrograms(normalise=False)(waveform).dense()
    assert_close(tokens, torch.log(mel()(waveform) + 1e-6).transpose(1, 2))


# Lengths at a multiple of the hop, just before and just after it, and shorter than one.
@pytest.mark.parametrize("length", [1, 11, 19, 20, 21, 59, 60, 61, 97])
@pytest.mark.parametrize("tile", [1, 3])
def test_padding_a_clip_changes_none_of_its_frames(length, tile):
    adapter = spectrograms(frames_per_token=tile, position=absolute, embed_dim=5)
    clip, longer = torch.randn(length), torch.randn(211)
    alone = adapter(clip[None])
    # Whatever stands in the padding.
    segment = adapter(*padded(clip, longer, to=220, value=0.7))
    tokens = alone.dense().shape[1]
    assert tokens == -(-(1 + length // HOP) // tile)
    assert segment.mask[0].sum() == tokens
    assert segment.mask[0, :tokens].all()
    # Fourier transforms of a batch add up in another order.
    assert_close(segment.dense()[:1, :tokens], alone.dense(), rtol=1e-5, atol=1e-5)


def test_an_absent_clip_has_no_frame_and_spoils_nothing():
    clip = torch.randn(97)
    segment = spectrograms()(*padded(clip, torch.randn(0), to=97))
    assert not segment.mask[1].any()
    assert segment.dense().isfinite().all()
    assert_close(segment.dense()[:1], spectrograms()(clip[None]).dense(), rtol=1e-5, atol=1e-5)


def test_silence_gives_finite_tokens():
    assert_close(spectrograms()(torch.zeros(2, 97)).dense(), torch.zeros(2, 5, BINS))


def test_patches_of_a_spectrogram_go_time_first_and_hold_bins_by_frames():
    waveform = torch.randn(2, 97)  # five frames, padded to six
    adapter = spectrograms(frames_per_token=3, bins_per_token=2, position=absolute)
    segment = adapter(waveform)
    log = torch.zeros(2, BINS, 6)
    log[:, :, :5] = adapter.log_spectrogram(waveform)
    tokens = [
        torch.stack(
            [log[:, 2 * row + bin, 3 * column + frame] for bin in range(2) for frame in range(3)],
            -1,
        )
        for column in range(2)
        for row in range(3)
    ]
    assert segment.shape == (2, 3)
    assert_close(segment.dense()[:, :, :6], torch.stack(tokens, 1), rtol=0, atol=0)
    assert adapter.position.shape == (9, 3)  # 26 frames in half a second


def test_the_longest_clip_has_positions_and_a_longer_one_is_refused():
    adapter = spectrograms(position=absolute)
    assert adapter(torch.randn(2, 500)).shape == adapter.position.shape == (26,)
    with pytest.raises(ValueError, match="input is 27 long but its positions end at 26"):
        adapter(torch.randn(2, 520))


def test_the_patches_of_padding_frames_are_masked_over_all_bins():
    adapter = spectrograms(bins_per_token=2)
    segment = adapter(*padded(torch.randn(20), torch.randn(70), to=70))
    assert segment.mask.tolist() == [[True] * 2 * 3 + [False] * 2 * 3, [True] * 4 * 3]


class Marking(nn.Module):
    def forward(self, log: torch.Tensor) -> torch.Tensor:
        return torch.full_like(log, 7.0)


def test_augmentation_acts_in_training_alone():
    adapter = spectrograms(augment=Marking())
    waveform = torch.randn(2, 97)
    assert (adapter.train()(waveform).dense() == 7).all()
    assert not (adapter.eval()(waveform).dense() == 7).any()


def test_spectrograms_are_made_in_full_precision_in_a_model_of_any_type():
    waveform = torch.randn(2, 97)
    single = spectrograms()(waveform).dense()
    double = spectrograms().double()(waveform.double()).dense()
    assert double.dtype is torch.float64
    assert_close(double, single.double(), rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(spectrograms()(waveform).dense(), single, rtol=0, atol=0)
    rounded = waveform.bfloat16()
    half = spectrograms().bfloat16()(rounded).dense()
    assert half.dtype is torch.bfloat16
    # The window and the filters were rounded to 8 bits with the model, the rest was not.
    assert_close(half.float(), spectrograms()(rounded.float()).dense(), rtol=0.02, atol=0.02)


def test_a_transform_that_breaks_its_promise_is_refused():
    with pytest.raises(ValueError, match="num_bins=7 and hop_length=20 promise 7 × 5"):
        spectrograms(num_bins=7)(torch.randn(2, 97))
    with pytest.raises(ValueError, match=r"6 bins × 5 frames, .* promise 6 × 7"):
        spectrograms(hop_length=16)(torch.randn(2, 97))
    with pytest.raises(ValueError, match="bins_per_token=4 does not divide num_bins=6"):
        spectrograms(bins_per_token=4)


@pytest.mark.parametrize(
    "adapter",
    [
        spectrograms(),
        WaveformAdapter(samples_per_token=5, sample_rate=1000, max_seconds=1.0, position=None),
    ],
    ids=["spectrogram", "waveform"],
)
def test_sound_that_is_not_mono_or_not_floating_or_misfits_its_mask_is_refused(adapter, unchecked):
    with pytest.raises(ValueError, match=r"\(2, 3, 97\) .* mono"):
        adapter(torch.randn(2, 3, 97))
    with pytest.raises(ValueError, match=r"int16; expected a mono floating-point waveform"):
        adapter(torch.zeros(2, 97, dtype=torch.int16))
    with pytest.raises(ValueError, match=r"mask is torch.bool of shape \(2, 96\)"):
        adapter(torch.randn(2, 97), torch.ones(2, 96, dtype=torch.bool))
    with pytest.raises(
        ValueError, match=r"mask is torch.float32 of shape \(2, 97\); expected bool"
    ):
        adapter(torch.randn(2, 97), torch.ones(2, 97))
