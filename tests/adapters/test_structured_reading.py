"""Keys and values that are never made, over what the adapters give: the answers of dense ones."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from perceiver.adapters import (
    ConvStagesAdapter,
    ConvStemAdapter,
    PaddingFusion,
    PatchAdapter,
    PixelAdapter,
    TokenAdapter,
    VideoAdapter,
    WaveformAdapter,
)
from perceiver.attention import Attention
from perceiver.models import MeanPoolDecoder, Perceiver, PerceiverEncoder
from perceiver.positions import FourierPositions, LearnedPositions, SinusoidalPositions

fourier = partial(FourierPositions, num_bands=3, absolute=True)
table = partial(LearnedPositions, table_dim=4)
pixels = {"channels": 3, "size": (8, 12)}
samples = {"sample_rate": 1000, "max_seconds": 0.3, "position": fourier}
ids = {"vocab_size": 17, "dim": 8, "max_length": 21}
clip = {"channels": 1, "num_frames": 4, "size": (4, 6), "patch_size": 2, "frames_per_patch": 2}


def picture():
    return torch.randn(3, 3, 8, 12), None


def sound():
    return torch.randn(3, 211), torch.arange(211) < torch.tensor([[211], [61], [140]])


def text():
    return torch.randint(17, (3, 19)), torch.arange(19) < torch.tensor([[4], [19], [12]])


def video():
    return torch.randn(3, 4, 1, 4, 6), None


# name → (what makes the adapter, what makes its input and mask)
CASES = {
    "pixels": (lambda: PixelAdapter(**pixels, position=fourier), picture),
    "pixels, learned factored table": (
        lambda: PixelAdapter(**pixels, position=partial(table, factored=True)),
        picture,
    ),
    "pixels, learned projected table": (
        lambda: PixelAdapter(**pixels, position=partial(table, project_dim=5)),
        picture,
    ),
    "patches": (lambda: PatchAdapter(patch_size=4, **pixels, position=fourier), picture),
    "patches, embedded": (
        lambda: PatchAdapter(patch_size=4, embed_dim=6, **pixels, position=fourier),
        picture,
    ),
    "convolutional stem": (
        lambda: ConvStemAdapter(stem_dim=5, **pixels, position=fourier),
        picture,
    ),
    "convolutional stages": (
        lambda: ConvStagesAdapter(dims=[5, 3], strides=[1, 2], **pixels, position=fourier),
        picture,
    ),
    "samples": (lambda: WaveformAdapter(samples_per_token=7, **samples), sound),
    "samples, embedded": (
        lambda: WaveformAdapter(samples_per_token=7, embed_dim=5, **samples),
        sound,
    ),
    "embeddings, joined with a table": (lambda: TokenAdapter(**ids, position=table), text),
    "embeddings, a table added": (
        lambda: TokenAdapter(**ids, position=partial(LearnedPositions, table_dim=8, add=True)),
        text,
    ),
    "embeddings, sinusoids": (
        lambda: TokenAdapter(**ids, position=partial(SinusoidalPositions, dim=8)),
        text,
    ),
    "blocks of a video": (lambda: VideoAdapter(**clip, position=fourier), video),
    "blocks of a video, embedded": (
        lambda: VideoAdapter(embed_dim=5, **clip, position=partial(table, factored=True)),
        video,
    ),
}


def perceiver(**adapters):
    model = Perceiver(
        adapters=adapters,
        fusion=partial(PaddingFusion, min_padding=2),
        encoder=partial(
            PerceiverEncoder,
            num_latents=5,
            latent_dim=8,
            num_blocks=2,
            num_layers=1,
            num_cross_attends=2,
        ),
        cross_attention=partial(Attention, num_heads=2, qk_dim=6),
        latent_attention=partial(Attention, num_heads=2),
        decoder=partial(MeanPoolDecoder, out_dim=3),
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model.double().eval()


def answers(model, kernel, inputs, masks):
    """The outputs, and the gradients of everything that learns."""
    for cross in model.encoder.cross_attends:
        cross.attention.kernel = kernel
    model.zero_grad()
    outputs = model(inputs, masks)
    outputs.square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    return {"outputs": outputs.detach()} | gradients


def check(model, kernel, **given):
    inputs, masks = {}, {}
    for name, (values, mask) in given.items():
        inputs[name] = values.double() if values.is_floating_point() else values
        masks |= {} if mask is None else {name: mask}
    expected = answers(model, "dense", inputs, masks)
    assert_close(answers(model, kernel, inputs, masks), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kernel", ["folded", "separable"])
@pytest.mark.parametrize("name", CASES)
def test_one_modality_gives_the_answers_and_gradients_of_dense_attention(name, kernel):
    make, draw = CASES[name]
    check(perceiver(it=make()), kernel, it=draw())


def several():
    """A model of four modalities of different widths, and what it reads."""
    chosen = ("convolutional stem", "samples", "embeddings, a table added", "blocks of a video")
    names = ("image", "audio", "text", "video")
    made = {name: CASES[case][0]() for name, case in zip(names, chosen, strict=True)}
    given = {name: CASES[case][1]() for name, case in zip(names, chosen, strict=True)}
    return perceiver(**made), given


@pytest.mark.parametrize("kernel", ["folded", "separable"])
def test_so_do_several_of_different_widths_together(kernel):
    model, given = several()
    check(model, kernel, **given)


def train_on(device, kernel):
    model, given = several()
    model.float().train().to(device)
    for cross in model.encoder.cross_attends:
        cross.attention.kernel = kernel
    inputs = {name: values.to(device) for name, (values, _) in given.items()}
    masks = {name: mask.to(device) for name, (_, mask) in given.items() if mask is not None}

    def step():
        model(inputs, masks).square().sum().backward()

    return step


KERNELS = ["auto", "dense", "sdpa", "chunked", "folded", "separable"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_training_step_asks_no_device_but_the_cpu_for_a_number(kernel):
    """What is inside of operators of our own does not run there; see test_structured.py."""
    train_on("meta", kernel)()  # which has none to give


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_training_step_waits_for_no_gpu(kernel):
    step = train_on("cuda", kernel)
    step()  # compiles kernels, and sends position codes
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
