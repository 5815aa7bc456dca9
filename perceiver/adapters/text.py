"""Text as a byte array: UTF-8 bytes, words, or the ids of any tokenizer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver.adapters.adapter import Adapter
from perceiver.positions import Positions
from perceiver.shapes import Bool, Int
from perceiver.types import Segment


class TokenAdapter(Adapter):
    """One token an id, looked up in a learned embedding (Jaegle et al. 2022, 4.1).

    UTF-8 bytes are ids 6 to 261 after six special ones: a vocabulary of 262.

    Of words, most are rare. Their embeddings begin next to zero (`init_std`), so that a word says
    little until it has come often: the LayerNorm of the cross-attention would otherwise make noise
    of unknown words as loud as what was learned of known ones. Dropping whole tokens in training
    (Iyyer et al. 2015) and numbers of embeddings keeps a model from learning texts by heart.

    Args:
        vocab_size: number of ids.
        dim: width of the embedding.
        max_length: the longest sequence that is meant to come.
        position: makes the position codes; see `Adapter`.
        init_std: standard deviation of the initial embeddings, a truncated normal; None = 0.02.
        token_dropout: chance of a token to be hidden in training; None = 0. Each text keeps one.
        dropout: chance of a number of an embedding to be dropped in training; None = 0.

    Raises:
        ValueError: for chances that are none; in `forward`, for values that are not ids (b, length)
            below `vocab_size`.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        dim: int,
        max_length: int,
        position: Callable[..., Positions] | None,
        init_std: float | None = None,
        token_dropout: float | None = None,
        dropout: float | None = None,
    ) -> None:
        super().__init__(content_dim=dim, shape=[max_length], position=position)
        self.token_dropout, self.dropout = token_dropout or 0.0, dropout or 0.0
        if not (0 <= self.token_dropout < 1 and 0 <= self.dropout < 1):
            raise ValueError(
                f"token_dropout={token_dropout} and dropout={dropout} must lie in [0, 1)"
            )
        self.embedding = nn.Embedding(vocab_size, dim)
        std = 0.02 if init_std is None else init_std
        nn.init.trunc_normal_(self.embedding.weight, std=std, a=-2 * std, b=2 * std)

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
        content = F.dropout(self.embedding(values), self.dropout, self.training)
        if self.training and self.token_dropout:
            mask = self._kept(values, mask)
        return self.segment(content, (values.shape[1],), mask)

    def _kept(self, values: Tensor, mask: Bool[Tensor, "b m"] | None) -> Bool[Tensor, "b m"]:
        """The tokens that are not dropped; of a text that would lose all, the luckiest."""
        draw = torch.rand(values.shape, device=values.device)
        if mask is not None:
            draw = draw.masked_fill(~mask, -1.0)
        kept = (draw >= self.token_dropout) | (draw == draw.amax(1, keepdim=True))
        return kept if mask is None else kept & mask
