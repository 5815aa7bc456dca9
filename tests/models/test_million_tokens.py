"""A training step over a million tokens, as a picture, a recording or a text, within 4 GiB."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from perceiver.adapters import PaddingFusion, PixelAdapter, TokenAdapter, WaveformAdapter
from perceiver.attention import Attention
from perceiver.models import MeanPoolDecoder, Perceiver, PerceiverEncoder
from perceiver.positions import FourierPositions, LearnedPositions

TOKENS = 1_000_000
fourier = partial(FourierPositions, num_bands=64, absolute=True)

# name → (what makes the adapter, what makes its input)
INPUTS = {
    "picture": (
        lambda: PixelAdapter(channels=3, size=(1000, 1000), position=fourier),
        lambda: torch.randn(1, 3, 1000, 1000),
    ),
    "recording": (
        lambda: WaveformAdapter(
            sample_rate=48_000, max_seconds=TOKENS / 48_000, samples_per_token=1, position=fourier
        ),
        lambda: torch.randn(1, TOKENS),
    ),
    "text": (
        lambda: TokenAdapter(
            vocab_size=256,
            dim=64,
            max_length=TOKENS,
            position=partial(LearnedPositions, table_dim=64, add=True),
        ),
        lambda: torch.randint(256, (1, TOKENS)),
    ),
}


def step(name: str) -> None:
    """One training step of a Perceiver with the paper's latents."""
    torch.manual_seed(0)
    make, draw = INPUTS[name]
    model = Perceiver(
        adapters={"it": make()},
        fusion=partial(PaddingFusion, min_padding=0),
        encoder=partial(
            PerceiverEncoder, num_latents=512, latent_dim=1024, num_blocks=1, num_layers=1
        ),
        cross_attention=partial(Attention, num_heads=1),
        latent_attention=partial(Attention, num_heads=8),
        decoder=partial(MeanPoolDecoder, out_dim=10),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    model({"it": draw()}).square().mean().backward()
    optimizer.step()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for its memory")
@pytest.mark.parametrize("name", INPUTS)
def test_a_million_tokens_train_in_four_gibibytes_with_all_that_torch_is(name):
    done = subprocess.run(
        [sys.executable, __file__, name],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < 4 << 20


if __name__ == "__main__":
    step(sys.argv[1])
    print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])  # KiB
