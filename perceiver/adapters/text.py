"""Text as a byte array: UTF-8 bytes, or the ids of any tokenizer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from perceiver.adapters.adapter import Adapter
from perceiver.positions import Positions
from perceiver.shapes import Bool, Int
from perceiver.types import Segment


class TokenAdapter(Adapter):
    """One token an id, looked up in a learned embedding (Jaegle et al. 2022, 4.1).

    UTF-8 bytes are ids 6 to 261 after six special ones: a vocabulary of 262.

    Args:
        vocab_size: number of ids.
        dim: width of the embedding.
        max_length: the longest sequence that is meant to come.
        position: makes the position codes; see `Adapter`.

    Raises:
        ValueError: in `forward`, for values that are not ids (b, length) below `vocab_size`.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        dim: int,
        max_length: int,
        position: Callable[..., Positions] | None,
    ) -> None:
        super().__init__(content_dim=dim, shape=[max_length], position=position)
        self.embedding = nn.Embedding(vocab_size, dim)
        nn.init.trunc_normal_(self.embedding.weight, std=0.02, a=-0.04, b=0.04)

    def forward(
        self, values: Int[Tensor, "b m"], mask: Bool[Tensor, "b m"] | None = None
    ) -> Segment:
        if values.dim() != 2 or values.is_floating_point() or values.dtype == torch.bool:
            raise ValueError(
                f"text has shape {tuple(values.shape)} and type {values.dtype}; "
                "expected integer ids (batch, length)"
            )
        # On a GPU the check would stall the queue, and a compiled graph cannot branch on it.
        if values.device.type == "cpu" and values.numel() and not torch.compiler.is_compiling():
            low, high = (int(bound) for bound in values.aminmax())
            if low < 0 or high >= self.embedding.num_embeddings:
                raise ValueError(
                    f"text holds the id {low if low < 0 else high}, out of range for "
                    f"vocab_size={self.embedding.num_embeddings}"
                )
        return self.segment(self.embedding(values), (values.shape[1],), mask)
