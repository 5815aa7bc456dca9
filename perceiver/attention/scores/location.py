"""Scores that look at where keys stand: Luong's location, and location-aware attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceiver.attention.normalisers import Normalised
from perceiver.attention.scores.pairwise import Score
from perceiver.ops.checks import check_sizes
from perceiver.ops.init import lecun_linear
from perceiver.shapes import Bool, Float


class Location(Score):
    """s = the first rows of W q [+ b] (Luong et al. 2015, eq. 8): the keys are not looked at.

    With a bias and the query [embedding; state] it is the fully connected layer of the translation
    tutorial.

    Args:
        query_dim: width of a query.
        max_len: the most keys there can be; the rows of W.
        bias: whether the layer has one.
    """

    def __init__(self, *, query_dim: int, max_len: int, bias: bool = False) -> None:
        super().__init__()
        check_sizes(max_len=max_len)
        self.max_len = max_len
        self.to_score = lecun_linear(query_dim, max_len, bias=bias)

    def check(self, num_queries: int, num_keys: int) -> None:
        if num_keys > self.max_len:
            raise ValueError(
                f"score=location has max_len={self.max_len} for {num_keys} keys: "
                f"set its max_len to {num_keys} or more, or use another score"
            )

    def forward(
        self, query: Float[Tensor, "b h q d"], key: Float[Tensor, "b h k d2"]
    ) -> Float[Tensor, "b h q k"]:
        return self.of_columns(query, key, slice(None))

    def of_columns(self, query: Tensor, key: Tensor, columns: slice) -> Tensor:
        """The scores of some of the keys: the rows of W that are theirs."""
        length, bias = key.shape[2], self.to_score.bias
        self.check(query.shape[2], length)
        weight = self.to_score.weight[:length][columns]
        return F.linear(query, weight, None if bias is None else bias[:length][columns])


@dataclass(frozen=True)
class LocationState:
    """What location-aware attention remembers of earlier steps.

    Args:
        previous: (b, h, 1, k) the weights of the step before.
        cumulative: (b, h, 1, k) the sum of the weights of all steps before.
    """

    previous: Tensor
    cumulative: Tensor

    def after(self, weights: Tensor) -> LocationState:
        """The state after a step that attended with `weights`."""
        return replace(self, previous=weights, cumulative=self.cumulative + weights)


class LocationAware(Score):
    """s_j = β v·tanh(W q + V k_j + U f_j + b), f = F ∗ w_{t−1} (Chorowski et al. 2015, eq. 8, 9).

    The queries are steps in time: each sees where the one before it looked, so the dense kernel
    takes them one after the other. F is zero-padded; as in every implementation it is a
    cross-correlation.

    Args:
        query_dim: width of a query.
        key_dim: width of a key.
        hidden_dim: width of the hidden layer; None = `key_dim`.
        num_filters: filters in F.
        filter_size: width of a filter; odd.
        is_cumulative: convolve the sum of all earlier weights too (Shen et al. 2018, Tacotron 2).
        sharpening: β, the inverse temperature of eq. 10.
        initial: w_{−1}: "uniform" over the kept keys of the first step, or "first" (one-hot).
    """

    is_sequential = True

    def __init__(
        self,
        *,
        query_dim: int,
        key_dim: int,
        hidden_dim: int | None = None,
        num_filters: int = 32,
        filter_size: int = 31,
        is_cumulative: bool = False,
        sharpening: float = 1.0,
        initial: str = "uniform",
    ) -> None:
        super().__init__()
        check_sizes(hidden_dim=hidden_dim, num_filters=num_filters, filter_size=filter_size)
        if filter_size % 2 == 0:
            raise ValueError(f"filter_size={filter_size} must be odd: a filter has a middle")
        if initial not in ("uniform", "first"):
            raise ValueError(f"initial={initial!r} must be 'uniform' or 'first'")
        self.width = hidden_dim or key_dim
        self.is_cumulative, self.sharpening, self.initial = is_cumulative, sharpening, initial
        self.to_query = lecun_linear(query_dim, self.width, bias=False)
        self.to_key = lecun_linear(key_dim, self.width, bias=False)
        self.filters = nn.Conv1d(
            2 if is_cumulative else 1,
            num_filters,
            filter_size,
            padding=filter_size // 2,
            bias=False,
        )
        self.to_location = lecun_linear(num_filters, self.width, bias=True)
        self.to_score = lecun_linear(self.width, 1, bias=False)

    def check_additions(
        self, *, has_position_bias: bool, mixes_heads: bool, softcap: float | None, has_bias: bool
    ) -> None:
        if has_position_bias or mixes_heads or softcap is not None:
            raise ValueError(
                "score=location_aware is computed query by query: it goes with position=none, "
                "softcap=null and heads that do not talk"
            )
        if has_bias:
            raise ValueError("score=location_aware is computed query by query: it takes no bias")

    def start(
        self, key: Float[Tensor, "b h k d"], keep: Bool[Tensor, "#b #h 1 #k"] | None = None
    ) -> LocationState:
        """The state before the first step, of which `keep` is the mask."""
        b, h, k, _ = key.shape
        valid = key.new_ones(b, h, 1, k) if keep is None else keep.expand(b, h, 1, k).to(key.dtype)
        if self.initial == "uniform":
            weights = valid / valid.sum(-1, keepdim=True).clamp_min(1)
        else:
            weights = torch.zeros_like(valid)
            weights[..., :1] = 1.0
        return LocationState(weights, torch.zeros_like(weights))

    def step(
        self,
        query: Float[Tensor, "b h 1 d"],
        key: Float[Tensor, "b h k d2"],
        state: LocationState,
    ) -> Float[Tensor, "b h 1 k"]:
        """The scores of one step."""
        return self._compare(self.to_query(query), self.to_key(key), state)

    def _compare(self, query: Tensor, key: Tensor, state: LocationState) -> Tensor:
        seen = [state.previous, state.cumulative] if self.is_cumulative else [state.previous]
        stacked = torch.cat(seen, 2).flatten(0, 1)
        located = self.filters(stacked.to(key.dtype)).transpose(1, 2).unflatten(0, key.shape[:2])
        hidden = query + key + self.to_location(located)
        return self.sharpening * self.to_score(hidden.tanh()).transpose(-1, -2)

    def weigh(
        self,
        query: Float[Tensor, "b h q d"],
        key: Float[Tensor, "b h k d2"],
        normalise: Callable[[Tensor, Tensor | None], Normalised],
        keep: Bool[Tensor, "#b #h #q #k"] | None,
    ) -> Normalised:
        """The weights of all queries, each computed after the one before it."""
        rows = query.shape[2]
        keeps = [None] * rows if keep is None else keep.expand(-1, -1, rows, -1).split(1, 2)
        state = self.start(key, keeps[0] if rows else None)
        queries, keys, weights = self.to_query(query), self.to_key(key), []
        for i in range(rows):
            scores = self._compare(queries[:, :, i : i + 1], keys, state)
            weights.append(normalise(scores, keeps[i]).weights)
            state = state.after(weights[-1])
        return Normalised(torch.cat(weights, 2))

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        raise NotImplementedError("location-aware scores depend on earlier weights: use step")
