"""Run as `python compiled.py BACKEND`: a training step compiled as one graph gives the same."""

from __future__ import annotations

import sys
from functools import partial

import torch

from perceiver.adapters import PaddingFusion, PixelAdapter, TokenAdapter
from perceiver.attention import Attention, MultiHeadAttention
from perceiver.models import MeanPoolDecoder, Perceiver, PerceiverEncoder
from perceiver.positions import FourierPositions, LearnedPositions


def model(kernel: str) -> Perceiver:
    """Reads a grid without gradients, and embedded ids with a position code, both learned."""
    return Perceiver(
        adapters={
            "image": PixelAdapter(
                channels=3, size=(7, 5), position=partial(FourierPositions, num_bands=2)
            ),
            "text": TokenAdapter(
                dim=11,
                vocab_size=13,
                max_length=17,
                position=partial(LearnedPositions, table_dim=3),
            ),
        },
        fusion=partial(PaddingFusion, min_padding=2),
        encoder=partial(
            PerceiverEncoder,
            num_latents=5,
            latent_dim=12,
            num_blocks=2,
            num_layers=1,
            num_cross_attends=2,
        ),
        cross_attention=partial(Attention, num_heads=2, qk_dim=6, kernel=kernel),
        latent_attention=partial(MultiHeadAttention, num_heads=3),
        decoder=partial(MeanPoolDecoder, out_dim=4),
    )


def check_codes(backend: str) -> None:
    """Graphs have position codes for constants: each model its own, and those of each length."""
    for resolution in (8, 16):
        positions = FourierPositions(shape=(9,), num_bands=2, max_resolution=(resolution,))
        compiled = torch.compile(positions, backend=backend, fullgraph=True)
        for length in (9, 7, 5, 9):
            (found,), (expected,) = compiled((length,)), positions((length,))
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
    reader = Reader()
    compiled = torch.compile(reader, backend=backend, fullgraph=True, dynamic=True)
    for length in (9, 7, 5, 9):
        x = torch.randn(length)
        torch.testing.assert_close(compiled(x), reader(x))


class Reader(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.positions = FourierPositions(shape=(9,), num_bands=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.positions(tuple(x.shape))[0].sum(1)


def step(run, module, inputs, masks):
    module.zero_grad()
    out = run(inputs, masks)
    out.square().sum().backward()
    return [out.detach(), *(p.grad.clone() for p in module.parameters() if p.grad is not None)]


def main(backend: str) -> None:
    check_codes(backend)
    torch.manual_seed(0)
    inputs = {"image": torch.randn(2, 3, 7, 5), "text": torch.randint(13, (2, 17))}
    masks = {"text": torch.arange(17) < torch.tensor([[17], [4]])}
    for kernel in ("separable", "folded"):
        torch._dynamo.reset()
        module = model(kernel)
        # Before anything is cached; position codes are constants of the graph from then on.
        compiled = torch.compile(module, backend=backend, fullgraph=True)
        step(compiled, module, inputs, masks)
        expected = step(module, module, inputs, masks)
        assert len(expected) > 20, "hardly anything learned"
        with torch._dynamo.config.patch(error_on_recompile=True):
            found = step(compiled, module, inputs, masks)
        for x, y in zip(found, expected, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    main(sys.argv[1])
