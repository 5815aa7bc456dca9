"""The attention of recurrent encoder-decoders by name: a few lines each over `Attention`.

Where a paper has no output projection there is none here either, and the result is as wide as the
context.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from perceiver.attention.attention import Attention
from perceiver.attention.masks import broadcast_mask, forbid_masked_nan
from perceiver.attention.scores.location import LocationAware, LocationState
from perceiver.ops.checks import check_shape
from perceiver.shapes import Bool, Float


class DotAttention(Attention):
    """softmax(q·k) over keys that are the values; nothing is learned.

    Args:
        dim: width of queries and context.
        scale: factor of q·k; None = 1/√dim.
        kernel: "auto", or the name of one.
    """

    def __init__(self, dim: int, *, scale: float | None = 1.0, kernel: str = "auto") -> None:
        super().__init__(dim, heads="identity", options={"dot": {"scale": scale}}, kernel=kernel)


class SingleHeadAttention(Attention):
    """softmax(Q·K/√d) V with three matrices, no biases and no output projection.

    Args:
        query_dim: width of the queries.
        key_dim: width of the context; None = `query_dim`.
        qk_dim: d; None = `key_dim`.
        v_dim: width of the values, and the result; None = `key_dim`.
        kernel: "auto", or the name of one.
    """

    def __init__(
        self,
        query_dim: int,
        key_dim: int | None = None,
        *,
        qk_dim: int | None = None,
        v_dim: int | None = None,
        kernel: str = "auto",
    ) -> None:
        v_dim = v_dim or key_dim or query_dim
        super().__init__(
            query_dim,
            key_dim,
            qk_dim=qk_dim,
            v_dim=v_dim,
            out_dim=v_dim,
            bias=False,
            options={"qkv": {"has_out_proj": False}},
            kernel=kernel,
        )


class BahdanauAttention(Attention):
    """v·tanh(W q + U k) over annotations that are keys and values (Bahdanau et al. 2015, A.1.2).

    Args:
        query_dim: width of the decoder's state s_{i−1}.
        key_dim: width of an annotation.
        hidden_dim: width of the hidden layer; None = `key_dim`.
        bias: whether the hidden layer has a bias; the paper's has none.
        normaliser: "softmax", or a hard one: see `HardAttention`.
        kernel: "auto", or the name of one.
    """

    def __init__(
        self,
        query_dim: int,
        key_dim: int,
        hidden_dim: int | None = None,
        *,
        bias: bool = False,
        normaliser: str = "softmax",
        kernel: str = "auto",
    ) -> None:
        super().__init__(
            query_dim,
            key_dim,
            out_dim=key_dim,
            score="additive",
            normaliser=normaliser,
            heads="identity",
            options={"additive": {"hidden_dim": hidden_dim, "bias": bias}},
            kernel=kernel,
        )


class HardAttention(BahdanauAttention):
    """Additive scores, one key read (Xu et al. 2015, 4.1). Outside training the likeliest.

    Args:
        query_dim: width of the decoder's state.
        key_dim: width of an annotation.
        hidden_dim: width of the hidden layer; None = `key_dim`.
        mode: "reinforce" (add `reinforce_loss`), "gumbel_st" or "argmax".
        kernel: "auto", or the name of one.
    """

    def __init__(
        self,
        query_dim: int,
        key_dim: int,
        hidden_dim: int | None = None,
        *,
        mode: str = "reinforce",
        kernel: str = "auto",
    ) -> None:
        if mode not in ("reinforce", "gumbel_st", "argmax"):
            raise ValueError(f"mode={mode!r} must be 'reinforce', 'gumbel_st' or 'argmax'")
        super().__init__(query_dim, key_dim, hidden_dim, normaliser=mode, kernel=kernel)


class LuongAttention(Attention):
    """Luong et al. 2015: eq. 8's scores, global or local (3.2).

    Args:
        query_dim: width of the decoder's state h_t.
        key_dim: width of an encoder state; None = `query_dim`.
        score: "dot", "general", "concat" or "location".
        hidden_dim: width of concat's hidden layer; None = `key_dim`.
        max_len: the most keys, for "location".
        local: None = global; "monotonic" (local-m) or "predictive" (local-p).
        reach: D, half the local window.
        kernel: "auto", or the name of one.

    Raises:
        ValueError: for another score or alignment, or "location" without `max_len`.
    """

    def __init__(
        self,
        query_dim: int,
        key_dim: int | None = None,
        *,
        score: str = "general",
        hidden_dim: int | None = None,
        max_len: int | None = None,
        local: str | None = None,
        reach: int = 10,
        kernel: str = "auto",
    ) -> None:
        if score not in ("dot", "general", "concat", "location"):
            raise ValueError(
                f"score={score!r} must be 'dot', 'general', 'concat' or 'location', those of eq. 8"
            )
        if score == "location" and max_len is None:
            raise ValueError("score='location' needs max_len, the most keys there can be")
        if local not in (None, "monotonic", "predictive"):
            raise ValueError(
                f"local={local!r} must be 'monotonic' (local-m), 'predictive' (local-p) or None "
                "(global)"
            )
        options: dict[str, dict[str, Any]] = {
            "dot": {"scale": 1.0},
            "additive": {"hidden_dim": hidden_dim},
            "location": {"max_len": max_len},
        }
        if local is not None:
            options["luong_local"] = {"alignment": local, "reach": reach}
        super().__init__(
            query_dim,
            key_dim,
            out_dim=key_dim or query_dim,
            score="additive" if score == "concat" else score,
            pattern="full" if local is None else "luong_local",
            heads="identity",
            options=options,
            kernel=kernel,
        )


class TutorialAttention(Attention):
    """softmax(W [e; h] + b), one row a place, over annotations (the PyTorch translation tutorial).

    Without a mask it attends to pads as well, as the tutorial does.

    Args:
        query_dim: width of [embedding; state].
        key_dim: width of an annotation.
        max_len: rows of W.
        kernel: "auto", or the name of one.
    """

    def __init__(
        self, query_dim: int, key_dim: int, *, max_len: int = 100, kernel: str = "auto"
    ) -> None:
        super().__init__(
            query_dim,
            key_dim,
            out_dim=key_dim,
            score="location",
            heads="identity",
            options={"location": {"max_len": max_len, "bias": True}},
            kernel=kernel,
        )


class LocationAwareAttention(Attention):
    """Additive scores that see the weights of the step before (Chorowski et al. 2015, eq. 8, 9).

    Args:
        query_dim: width of the decoder's state.
        key_dim: width of an annotation.
        hidden_dim: width of the hidden layer; None = `key_dim`.
        num_filters: filters over the previous weights.
        filter_size: width of a filter; odd.
        is_cumulative: see the sum of all earlier weights too (Tacotron 2).
        sharpening: β, the inverse temperature.
        initial: the weights before the first step: "uniform" over the kept keys, or "first".
        kernel: "auto", or the name of one.
    """

    def __init__(
        self,
        query_dim: int,
        key_dim: int,
        hidden_dim: int | None = None,
        *,
        num_filters: int = 32,
        filter_size: int = 31,
        is_cumulative: bool = False,
        sharpening: float = 1.0,
        initial: str = "uniform",
        kernel: str = "auto",
    ) -> None:
        own = {
            "hidden_dim": hidden_dim,
            "num_filters": num_filters,
            "filter_size": filter_size,
            "is_cumulative": is_cumulative,
            "sharpening": sharpening,
            "initial": initial,
        }
        super().__init__(
            query_dim,
            key_dim,
            out_dim=key_dim,
            score="location_aware",
            heads="identity",
            options={"location_aware": own},
            kernel=kernel,
        )

    def step(
        self,
        query: Float[Tensor, "b e"],
        context: Float[Tensor, "b k c"],
        state: LocationState | None = None,
        *,
        mask: Bool[Tensor, "b k"] | None = None,
    ) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b k"], LocationState]:
        """One step of decoding: (read, weights, the state for the next step).

        Args:
            query: the decoder's state.
            context: annotations.
            state: what the last step returned; None = the first step.
            mask: True = may attend.

        Raises:
            ValueError: for tensors of other shapes, or NaN in masked elements (on a CPU).
            TypeError: for a mask that is not boolean.
        """
        assert isinstance(self.score, LocationAware)
        batch, keys = context.shape[:2]
        check_shape("query", query, batch, self.query_dim)
        check_shape("context", context, batch, "length", self.key_dim)
        keep = None
        if mask is not None:
            keep = broadcast_mask(mask, batch=batch, heads=1, queries=1, keys=keys)
        key = context[:, None]
        state = self.score.start(key, keep) if state is None else state
        scores = self.score.step(query[:, None, None], key, state)
        weights = self.normaliser(scores, keep).weights
        read = (weights @ key)[:, 0]
        forbid_masked_nan(read, context, keep)
        return read[:, 0], weights[:, 0, 0], state.after(weights)
