"""What pretrained encoders share: frozen or fine-tuned, tokens kept, absent examples left out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from perceiver.adapters.adapter import Adapter
from perceiver.adapters.pretrained.cache import TokenCache
from perceiver.adapters.pretrained.tokens import layer_rates, placed, stacked
from perceiver.positions import Positions
from perceiver.shapes import Bool
from perceiver.types import Segment


class PretrainedAdapter(Adapter):
    """Base of adapters around an encoder of another library: its tokens, not a pooled vector.

    The encoder sees each example without its padding, and no example that lacks the modality. Its
    tokens are normalised by a LayerNorm before they are embedded, as encoders scale them very
    differently.

    `architecture` is all that the encoder can be built from again, as plain data: a checkpoint
    holds that and the weights, and needs no folder.

    Args:
        encoder: the other library's module.
        architecture: what it was built from.
        content_dim: width of its tokens.
        shape: the largest grid of tokens.
        prefix: tokens that come before the grid and have no place on it, a class token say.
        fixed: whether every example has the whole grid.
        position: makes position codes of the grid beside what the encoder knows of places.
        embed_dim: width of a linear embedding of the tokens; None = as wide as they come.
        frozen: leave the encoder as it is: no gradients, no dropout, no place in the optimiser.
        lr_scale: the encoder's learning rate as a share of the optimiser's, where it is not frozen.
        lr_decay: the rate of each of its layers as a share of that of the layer above.
        cache_gib: memory for tokens of a frozen encoder, which are then computed once for each
            input; 0 = compute them every time.
        cache_half: keep them in half precision.

    Raises:
        ValueError: for rates or sizes below 0.
    """

    takes_present = True
    kind: ClassVar[str]  # of modality, whose options of the data it must fit

    def __init__(
        self,
        *,
        encoder: nn.Module,
        architecture: Mapping[str, Any],
        content_dim: int,
        shape: Sequence[int],
        prefix: int = 0,
        fixed: bool = False,
        position: Callable[..., Positions] | None = None,
        embed_dim: int | None = None,
        frozen: bool = True,
        lr_scale: float = 0.1,
        lr_decay: float = 1.0,
        cache_gib: float = 1.0,
        cache_half: bool = False,
    ) -> None:
        super().__init__(
            content_dim=content_dim, shape=shape, position=position, embed_dim=embed_dim
        )
        if min(lr_scale, lr_decay, cache_gib) < 0:
            raise ValueError(
                f"lr_scale={lr_scale}, lr_decay={lr_decay} and cache_gib={cache_gib} must not be "
                "below 0"
            )
        self.architecture = dict(architecture)
        self.content_dim, self.shape, self.prefix, self.fixed = content_dim, shape, prefix, fixed
        self.num_tokens += prefix
        self.norm = nn.LayerNorm(content_dim)
        self.encoder = encoder.requires_grad_(not frozen)
        self.frozen, self.lr_scale, self.lr_decay = frozen, lr_scale, lr_decay
        self.cache: TokenCache | None = None
        if frozen and cache_gib > 0:
            self.cache = TokenCache(max_bytes=int(cache_gib * 2**30), half=cache_half)
        self.train()

    @classmethod
    @abstractmethod
    def describe(cls, *, name: str | None, weights: str | None) -> dict[str, Any]:
        """The architecture of that name, or of those weights, as plain data."""

    @classmethod
    def data_options(cls, architecture: Mapping[str, Any]) -> dict[str, Any]:
        """What the encoder wants of the data of its kind: a size, a rate."""
        return {}

    @abstractmethod
    def check(self, values: Tensor, mask: Tensor | None) -> None:
        """Raise ValueError for what is no batch of the modality."""

    @abstractmethod
    def cut(self, values: Tensor, mask: Tensor) -> Tensor:
        """One example (…) without its padding."""

    @abstractmethod
    def encode(self, examples: Sequence[Tensor]) -> list[Tensor]:
        """The tokens (n, c) of each of some examples of any sizes."""

    def train(self, mode: bool = True) -> PretrainedAdapter:
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        if self.cache is not None:
            self.cache.clear()
        super()._load_from_state_dict(*args, **kwargs)

    def rate_scales(self) -> dict[str, float]:
        """Parameter → share of the optimiser's rate that it learns at."""
        rates = layer_rates(self.encoder, scale=self.lr_scale, decay=self.lr_decay)
        return {f"encoder.{name}": rate for name, rate in rates.items()}

    def forward(
        self,
        values: Tensor,
        mask: Tensor | None = None,
        present: Bool[Tensor, " b"] | None = None,
    ) -> Segment:
        self.check(values, mask)
        real = torch.ones(len(values), dtype=torch.bool) if present is None else present.cpu()
        if mask is not None:
            real = real & mask.flatten(1).any(1).cpu()
        rows = real.nonzero().flatten().tolist()
        tokens = self._tokens(
            [values[n] if mask is None else self.cut(values[n], mask[n]) for n in rows]
        )
        least = self.num_tokens if self.fixed else self.prefix + 1
        shape = (len(values), least, self.content_dim)
        content, is_token = stacked(tokens, rows, shape, encoder=self.encoder)
        # Rows that are absent as a whole need no mask here: the model leaves them out.
        is_full = is_token.all(1) | (False if present is None else ~present.cpu())
        token_mask = None if is_full.all() else is_token.to(values.device)
        content = self.embed(self.norm(content.to(self.norm.weight.dtype)))
        grid = tuple(self.shape) if self.fixed else None
        return placed(content, token_mask, grid, prefix=self.prefix, position=self.position)

    @torch.compiler.disable
    def _tokens(self, examples: list[Tensor]) -> list[Tensor]:
        if not examples or not self.frozen:
            return self.encode(examples) if examples else []
        with torch.no_grad():
            if self.cache is None:
                return self.encode(examples)
            return self.cache.through(self.encode, examples)
