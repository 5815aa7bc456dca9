"""The published models, in plain Python: their parameters exactly, their work within 0.5 %."""

from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from perceiver.adapters import ConvStemAdapter, PaddingFusion, PixelAdapter
from perceiver.attention import Attention
from perceiver.models import (
    LearnedQueries,
    MeanPoolDecoder,
    Perceiver,
    PerceiverEncoder,
    QueryDecoder,
)
from perceiver.positions import FourierPositions, LearnedPositions

SIZE = (224, 224)
fourier = partial(FourierPositions, num_bands=64)
# The dense kernel is the definition, of the work as well.
attention = partial(Attention, kernel="dense")
single_head = partial(attention, num_heads=1)


def imagenet_model(adapter, decoder, **encoder) -> Perceiver:
    return Perceiver(
        adapters={"image": adapter},
        fusion=partial(PaddingFusion, min_padding=0),
        encoder=partial(
            PerceiverEncoder,
            num_latents=512,
            latent_dim=1024,
            num_blocks=8,
            num_layers=6,
            **encoder,
        ),
        cross_attention=single_head,
        latent_attention=partial(attention, num_heads=8),
        decoder=decoder,
    )


def perceiver(**encoder) -> Perceiver:
    """Jaegle et al. 2021, 4.1: raw pixels, 64 bands, mean-pooled latents."""
    pixels = PixelAdapter(channels=3, size=SIZE, position=fourier)
    return imagenet_model(pixels, partial(MeanPoolDecoder, out_dim=1000), **encoder)


def perceiver_io(adapter) -> Perceiver:
    """Jaegle et al. 2022, 4.5: one cross-attend, a query decoder without query residual."""
    decoder = partial(
        QueryDecoder,
        out_dim=1000,
        queries=LearnedQueries(num_queries=1, dim=1024),
        attention=single_head,
    )
    return imagenet_model(adapter, decoder)


def fourier_io() -> Perceiver:
    return perceiver_io(PixelAdapter(channels=3, size=SIZE, position=fourier))


def conv_io() -> Perceiver:
    return perceiver_io(ConvStemAdapter(channels=3, size=SIZE, stem_dim=64, position=fourier))


def learned_io() -> Perceiver:
    learned = partial(LearnedPositions, table_dim=256, project_dim=256)
    return perceiver_io(PixelAdapter(channels=3, size=SIZE, position=learned, embed_dim=256))


# Cross-attends 2 to 8 share weights, so six of them need not project the image again.
SHARED = 6 * 2 * 224**2 * 261 * (261 + 261)
MODELS = {
    "perceiver": (partial(perceiver, num_cross_attends=8), 44_912_254, 707e9 - SHARED),
    "perceiver, nothing shared": (
        partial(perceiver, num_cross_attends=8, cross_sharing="none", share_blocks=False),
        326_241_856,
        707e9,
    ),
    "perceiver, one cross-attend": (perceiver, 42_135_859, 404e9),
    "perceiver io, fourier": (fourier_io, 48_440_627, 407e9),
    "perceiver io, conv stem": (conv_io, 48_646_522, 369e9),
    "perceiver io, learned positions": (learned_io, 62_255_848, None),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_published_models_have_the_published_size(name):
    make, parameters, flops = MODELS[name]
    with torch.device("meta"):
        model = make()
        image = torch.empty(1, 3, *SIZE)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    if flops is None:
        return
    with FlopCounterMode(display=False) as counter:
        outputs = model.requires_grad_(False)({"image": image})
    assert tuple(outputs.shape) == (1, 1, 1000)
    assert counter.get_total_flops() == pytest.approx(flops, rel=0.005)
