"""Padding never changes a result: an example alone, and in a batch with a longer or larger one."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close
from torchaudio.transforms import MelSpectrogram

from perceiver.adapters import (
    ArrayAdapter,
    ConvStagesAdapter,
    ConvStemAdapter,
    PaddingFusion,
    PatchAdapter,
    PixelAdapter,
    SpectrogramAdapter,
    TokenAdapter,
    WaveformAdapter,
)
from perceiver.attention import Attention
from perceiver.models import MeanPoolDecoder, Perceiver, PerceiverEncoder
from perceiver.positions import FourierPositions, LearnedPositions, SinusoidalPositions

absolute = partial(FourierPositions, num_bands=3, absolute=True)
mel = MelSpectrogram(sample_rate=1000, n_fft=64, hop_length=20, n_mels=6, pad_mode="constant")
sound = {"sample_rate": 1000, "max_seconds": 0.3, "position": absolute}
spectrogram = partial(SpectrogramAdapter, transform=mel, num_bins=6, hop_length=20, **sound)
image = {"channels": 3, "size": (24, 32), "position": absolute}
text = partial(TokenAdapter, vocab_size=17, dim=8, max_length=40)

# name → (what makes the adapter, shape of an example, shape of another)
CASES = {
    "waveform": (lambda: WaveformAdapter(samples_per_token=7, **sound), (61,), (211,)),
    "waveform embedded": (
        lambda: WaveformAdapter(samples_per_token=7, embed_dim=5, **sound),
        (5,),
        (300,),
    ),
    "spectrogram": (spectrogram, (61,), (211,)),
    "spectrogram patches": (
        lambda: spectrogram(frames_per_token=3, bins_per_token=2, embed_dim=5),
        (97,),
        (300,),
    ),
    "spectrogram as it is": (lambda: spectrogram(normalise=False), (20,), (59,)),
    "text": (lambda: text(position=partial(LearnedPositions, table_dim=8, add=True)), (5,), (37,)),
    "text with sinusoids": (lambda: text(position=partial(SinusoidalPositions, dim=8)), (1,), (9,)),
    "array": (lambda: ArrayAdapter(channels=2, shape=(13,), position=absolute), (5, 2), (11, 2)),
    "array of two axes": (
        lambda: ArrayAdapter(channels=2, shape=(13, 7), position=absolute),
        (5, 3, 2),
        (11, 7, 2),
    ),
    "pixels": (lambda: PixelAdapter(**image), (3, 5, 7), (3, 11, 6)),
    "pixels learned": (
        lambda: PixelAdapter(
            **image | {"position": partial(LearnedPositions, table_dim=4, factored=True)}
        ),
        (3, 5, 7),
        (3, 11, 13),
    ),
    "patches": (lambda: PatchAdapter(patch_size=4, embed_dim=6, **image), (3, 8, 12), (3, 20, 4)),
    "patches in part": (lambda: PatchAdapter(patch_size=4, **image), (3, 7, 9), (3, 21, 30)),
    "convolutions": (lambda: ConvStemAdapter(stem_dim=5, **image), (3, 12, 16), (3, 24, 32)),
    "convolutions of odd sides": (
        lambda: ConvStemAdapter(stem_dim=5, **image),
        (3, 11, 18),
        (3, 23, 13),
    ),
    "convolutions in stages": (
        lambda: ConvStagesAdapter(dims=[5, 7], strides=[1, 2], patch_size=2, **image),
        (3, 11, 18),
        (3, 23, 13),
    ),
}


def draw(adapter, size):
    if isinstance(adapter, TokenAdapter):
        return torch.randint(0, 17, size)
    return torch.randn(size)


def together(adapter, *examples):
    """One batch of several examples, anything at all in the padding, and its mask."""
    pictures = (PixelAdapter, PatchAdapter, ConvStemAdapter)
    axis = -1 if isinstance(adapter, ArrayAdapter) else 0 if isinstance(adapter, pictures) else None
    largest = [max(sides) for sides in zip(*(e.shape for e in examples), strict=True)]
    values = draw(adapter, (len(examples), *largest))
    sides = list(largest)
    if axis is not None:
        sides.pop(axis)
    mask = torch.zeros(len(examples), *sides, dtype=torch.bool)
    for row, example in enumerate(examples):
        values[row][tuple(slice(side) for side in example.shape)] = example
        shape = list(example.shape)
        if axis is not None:
            shape.pop(axis)
        mask[row][tuple(slice(side) for side in shape)] = True
    return values, mask


@pytest.fixture(params=CASES)
def case(request):
    make, *sizes = CASES[request.param]
    adapter = make()
    for module in adapter.modules():  # as if it had been trained: padding is not what it normalises
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return adapter.eval(), *(draw(adapter, size) for size in sizes)


def test_padding_changes_none_of_the_tokens(case):
    adapter, short, long = case
    alone = adapter(short[None]).dense()
    segment = adapter(*together(adapter, short, long))
    kept = segment.dense()[0][segment.mask[0]]
    assert_close(kept, alone[0], rtol=1e-5, atol=1e-5)
    assert segment.dense().isfinite().all()


def test_padding_changes_no_answer(case):
    adapter, short, long = case
    torch.manual_seed(3)
    model = Perceiver(
        adapters={"it": adapter},
        fusion=partial(PaddingFusion, min_padding=2),
        encoder=partial(PerceiverEncoder, num_latents=5, latent_dim=8, num_layers=1),
        cross_attention=partial(Attention, num_heads=1),
        latent_attention=partial(Attention, num_heads=2),
        decoder=partial(MeanPoolDecoder, out_dim=3),
    ).eval()
    values, mask = together(adapter, short, long)
    outputs = model({"it": values}, {"it": mask})
    for row, example in enumerate((short, long)):
        assert_close(outputs[row], model({"it": example[None]})[0], rtol=1e-5, atol=1e-5)


class Together(torch.nn.SyncBatchNorm):
    """One of a single process, which a CPU takes as well."""

    forward = torch.nn.BatchNorm2d.forward


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", [torch.nn.BatchNorm2d, Together])
def test_a_batch_norm_in_training_counts_real_places_alone(kind, dtype):
    adapter = ConvStemAdapter(stem_dim=5, **image).train()
    norm = adapter.stem[2] = kind(5)
    for values in norm.parameters():
        torch.nn.init.normal_(values)
    adapter.to(dtype)
    images = torch.randn(2, 3, 12, 16).to(dtype)
    unpadded = adapter(images).dense()
    factor = torch.randn_like(unpadded)
    expected = torch.autograd.grad((unpadded * factor).sum(), adapter.parameters())
    statistics = norm.running_mean.clone(), norm.running_var.clone(), norm.num_batches_tracked + 0
    norm.reset_running_stats()
    values, mask = together(adapter, *images, torch.zeros(3, 20, 20))
    segment = adapter(values[:2].to(dtype), mask[:2])
    padded = segment.dense()[segment.mask].reshape(unpadded.shape)
    assert_close(padded, unpadded)
    off = {"rtol": 0.02, "atol": 0.05} if dtype == torch.bfloat16 else {}
    gradients = torch.autograd.grad((padded * factor).sum(), adapter.parameters())
    assert_close(gradients, expected, **off)
    assert_close((norm.running_mean, norm.running_var, norm.num_batches_tracked), statistics)


@pytest.mark.parametrize("is_masked", [False, True])
def test_a_batch_norm_in_training_counts_images_that_are_there_alone(is_masked):
    adapter = ConvStemAdapter(stem_dim=5, **image).train()
    norm, images = adapter.stem[2], torch.randn(3, 3, 12, 16)
    present = torch.tensor([True, False, True])
    mask = torch.ones(3, 12, 16, dtype=torch.bool) if is_masked else None
    expected = adapter(images[present]).dense()
    statistics = norm.running_mean.clone(), norm.running_var.clone()
    norm.reset_running_stats()
    segment = adapter(images * present[:, None, None, None], mask, present)
    assert_close(segment.dense()[present], expected)
    assert_close((norm.running_mean, norm.running_var), statistics)
    assert (segment.mask is not None) == is_masked


def test_stages_learn_from_places_of_pictures_that_are_there_alone():
    adapter = ConvStagesAdapter(dims=[5, 7], strides=[1, 2], **image).train()
    images, present = torch.randn(3, 3, 11, 18), torch.tensor([True, False, True])
    expected = adapter(images[present]).dense()
    statistics = {name: values.clone() for name, values in adapter.named_buffers()}
    for stage in adapter.stages:
        stage[1].reset_running_stats()
    values, mask = together(adapter, *images, torch.zeros(3, 20, 20))
    segment = adapter(values[:3], mask[:3], present)
    real = present[:, None] & segment.mask
    assert_close(segment.dense()[real].reshape(expected.shape), expected)
    assert_close(dict(adapter.named_buffers()), statistics)


def test_padding_alone_teaches_a_batch_norm_nothing():
    adapter = ConvStemAdapter(stem_dim=5, **image).train()
    before = {name: values.clone() for name, values in adapter.stem[2].state_dict().items()}
    adapter(torch.randn(2, 3, 12, 16), torch.zeros(2, 12, 16, dtype=torch.bool))
    before["num_batches_tracked"] += 1
    assert_close(dict(adapter.stem[2].state_dict()), before)


def test_positions_that_padding_would_move_are_refused():
    adapter = PixelAdapter(**image | {"position": partial(FourierPositions, num_bands=2)})
    batch = together(adapter, torch.randn(3, 5, 7), torch.randn(3, 6, 6))
    with pytest.raises(ValueError, match=r"PixelAdapter was given .* position\.absolute=true"):
        adapter(*batch)
    assert adapter(torch.randn(2, 3, 5, 7)).mask is None
