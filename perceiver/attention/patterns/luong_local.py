"""Luong's local attention: a window around a centre that the query may predict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import torch
from torch import Tensor, nn

from perceiver.attention.normalisers.normaliser import widen
from perceiver.attention.patterns.pattern import Pattern, PatternMaker, Predicate, Sizes
from perceiver.ops.checks import check_sizes
from perceiver.ops.init import lecun_linear
from perceiver.shapes import Bool, Float, Int


@dataclass(frozen=True, eq=False)
class Localised(Pattern):
    """⌊centre⌋ − reach ≤ j ≤ ⌊centre⌋ + reach, inside the sentence.

    Args:
        centre: (b, q), on the scale of key indices.
        lengths: (b,) keys of each sentence.
        reach: D.
        is_gaussian: weights get the factor exp(−(j − centre)² / (2 (D/2)²)) (eq. 10).
    """

    centre: Float[Tensor, "b q"]
    lengths: Int[Tensor, " b"]
    reach: int
    is_gaussian: bool

    name = ""

    @property
    def has_weight_factor(self) -> bool:  # type: ignore[override]
        return self.is_gaussian

    @property
    def window_centre(self) -> Tensor:
        return self.centre

    def bind(
        self, num_queries: int, num_keys: int, device: torch.device | None = None
    ) -> Predicate:
        middle, lengths = self.centre.detach().floor().long(), self.lengths

        @no_type_check
        def keep(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return ((middle[b, i] - j).abs() <= self.reach) & (j < lengths[b])

        return keep

    def weight_factor(self, num_keys: int) -> Float[Tensor, "b 1 q k"] | None:
        if not self.is_gaussian:
            return None
        keys = torch.arange(num_keys, device=self.centre.device, dtype=self.centre.dtype)
        distance = keys - self.centre[..., None]
        return torch.exp(-(distance**2) / (2 * (self.reach / 2) ** 2))[:, None]


class LuongLocal(nn.Module, PatternMaker):
    """A window of 2 D + 1 keys around a centre p (Luong et al. 2015, 3.2).

    "monotonic", local-m: p = t, the index of the query. "predictive", local-p: p = S σ(v·tanh(W h))
    (eq. 9), S the sentence's own length, and the weights get a Gaussian around p (eq. 10) without
    being normalised again; so p's gradient comes through the Gaussian alone. A query whose window
    lies past the sentence reads zeros.

    Args:
        model_dim: width of the queries h as they come in.
        alignment: "monotonic" or "predictive".
        reach: D.
        hidden_dim: width of the hidden layer; None = `model_dim`.
    """

    def __init__(
        self,
        *,
        model_dim: int,
        alignment: str = "predictive",
        reach: int = 10,
        hidden_dim: int | None = None,
    ) -> None:
        super().__init__()
        if alignment not in ("monotonic", "predictive"):
            raise ValueError(
                f"luong_local has alignment={alignment!r}: it must be 'monotonic' (local-m) or "
                "'predictive' (local-p)"
            )
        if reach < 1:
            raise ValueError(f"luong_local has reach={reach}: it must be 1 or more")
        check_sizes(hidden_dim=hidden_dim)
        self.reach = reach
        self.predicts = alignment == "predictive"
        if self.predicts:
            hidden_dim = hidden_dim or model_dim
            self.to_hidden = lecun_linear(model_dim, hidden_dim, bias=False)
            self.to_centre = lecun_linear(hidden_dim, 1, bias=False)

    def resolve(
        self,
        query: Tensor,
        sizes: Sizes,
        *,
        given: Pattern | None,
        keep: Tensor | None,
        first: int = 0,
    ) -> tuple[Pattern, Tensor | None]:
        batch, heads, queries, keys = sizes
        if given is not None:
            keep = given.dense(queries, keys, batch=batch, heads=heads, device=query.device)
        lengths = sentence_lengths(keep, batch, keys, query.device)
        return self(query.expand(batch, -1, -1), lengths, first), keep

    def forward(
        self, query: Float[Tensor, "b q e"], lengths: Int[Tensor, " b"], first: int = 0
    ) -> Localised:
        """The pattern of these queries.

        Args:
            query: h.
            lengths: S.
            first: index of the first query in its sentence, for decoding step by step.
        """
        if self.predicts:
            where = widen(self.to_centre(self.to_hidden(query).tanh())[..., 0]).sigmoid()
            centre = lengths[:, None] * where
        else:
            steps = torch.arange(first, first + query.shape[1], device=query.device)
            centre = steps.expand(query.shape[:2]).to(torch.float32)
        return Localised(centre, lengths, self.reach, self.predicts)


def sentence_lengths(
    keep: Bool[Tensor, "..."] | None, batch: int, keys: int, device: torch.device
) -> Int[Tensor, " b"]:
    """The keys up to the last kept one, of each example.

    Args:
        keep: (#b, #h, #q, #k), or None.
    """
    ends = torch.arange(1, keys + 1, device=device)
    if keep is None:
        return ends.new_full((batch,), keys)
    kept = keep.expand(-1, -1, -1, keys).flatten(1, 2).any(1)
    return (kept * ends).amax(-1).expand(batch)
