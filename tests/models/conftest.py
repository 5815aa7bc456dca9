from functools import partial

import pytest
import torch
from torchaudio.transforms import MelSpectrogram

from perceiver.adapters import PaddingFusion, PixelAdapter, SpectrogramAdapter, TokenAdapter
from perceiver.attention import Attention
from perceiver.models import LearnedQueries, Perceiver, PerceiverEncoder, QueryDecoder
from perceiver.positions import FourierPositions, LearnedPositions


@pytest.fixture(autouse=True)
def _same_numbers_every_time():
    torch.manual_seed(0)


def small_adapters() -> dict:
    return {
        "image": PixelAdapter(
            channels=3, size=(3, 5), position=partial(FourierPositions, num_bands=3)
        ),
        "audio": SpectrogramAdapter(
            transform=MelSpectrogram(
                sample_rate=1000, n_fft=64, hop_length=20, n_mels=7, pad_mode="constant"
            ),
            num_bins=7,
            hop_length=20,
            sample_rate=1000,
            max_seconds=0.3,
            frames_per_token=2,
            embed_dim=5,
            position=partial(FourierPositions, num_bands=2, absolute=True),
        ),
        "text": TokenAdapter(
            vocab_size=17,
            dim=11,
            max_length=13,
            position=partial(LearnedPositions, table_dim=11, add=True),
        ),
    }


@pytest.fixture
def small_model():
    """small_model("image", "text", …) → a Perceiver of those modalities; "image" is the widest."""

    def build(*modalities: str, **options) -> Perceiver:
        adapters = small_adapters()
        parts = {
            "adapters": {name: adapters[name] for name in modalities or adapters},
            "fusion": partial(PaddingFusion, min_padding=2),
            "encoder": partial(
                PerceiverEncoder,
                num_latents=7,
                latent_dim=12,
                num_blocks=3,
                num_layers=2,
                num_cross_attends=2,
            ),
            "cross_attention": partial(Attention, num_heads=1),
            "latent_attention": partial(Attention, num_heads=3),
            "decoder": partial(
                QueryDecoder,
                out_dim=5,
                queries=LearnedQueries(num_queries=2, dim=13),
                attention=partial(Attention, num_heads=2),
            ),
        }
        return Perceiver(**(parts | options)).double()

    return build


@pytest.fixture
def small_inputs() -> dict[str, torch.Tensor]:
    return {
        "image": torch.randn(3, 3, 3, 5, dtype=torch.float64),
        "audio": torch.randn(3, 97, dtype=torch.float64),
        "text": torch.randint(0, 17, (3, 13)),
    }
