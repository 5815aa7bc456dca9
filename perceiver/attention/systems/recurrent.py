"""One step of the recurrent decoders that attention was invented for."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from perceiver.attention.attention import Attention
from perceiver.attention.output import AttentionAux, AttentionOutput
from perceiver.ops.checks import check_shape, check_width
from perceiver.ops.init import lecun_linear
from perceiver.shapes import Bool, Float


class Step(NamedTuple):
    """What a decoder step returns.

    Args:
        state: (b, n) the new state; for Luong's step h̃.
        context: (b, c) what attention read.
        weights: (b, h, 1, k).
        aux: see `AttentionOutput`.
    """

    state: Tensor
    context: Tensor
    weights: Tensor | None
    aux: AttentionAux


def _attend(
    attention: Attention, query: Tensor, annotations: Tensor, mask: Tensor | None, step: int = 0
) -> tuple[Tensor, AttentionOutput]:
    read: AttentionOutput = attention(
        query[:, None], annotations, mask=mask, need_weights=True, step=step
    )
    return read.out[:, 0], read


class LuongStep(nn.Module):
    """h̃_t = tanh(W_c [c_t; h_t]), the context first (Luong et al. 2015, eq. 5).

    With input feeding (3.3) the decoder's next input is [embedding; h̃_t], h̃_0 = 0.

    Args:
        attention: attends with h_t; reads `context_dim` channels.
        state_dim: width of h_t.
        context_dim: width of c_t.
    """

    def __init__(self, attention: Attention, *, state_dim: int, context_dim: int) -> None:
        super().__init__()
        self.attention, self.state_dim, self.context_dim = attention, state_dim, context_dim
        self.to_state = lecun_linear(context_dim + state_dim, state_dim, bias=False)

    def forward(
        self,
        state: Float[Tensor, "b n"],
        annotations: Float[Tensor, "b k c"],
        mask: Bool[Tensor, "b k"] | None = None,
        *,
        step: int = 0,
    ) -> Step:
        """Step `step` of decoding, from the decoder's state h_t and the encoder's states."""
        check_width("state", state, self.state_dim)
        context, read = _attend(self.attention, state, annotations, mask, step)
        check_width("what attention read", context, self.context_dim)
        attentional = self.to_state(torch.cat([context, state], -1)).tanh()
        return Step(attentional, context, read.weights, read.aux)


class BahdanauStep(nn.Module):
    """s_i = (1 − z) s_{i−1} + z s̃, attending with s_{i−1} (Bahdanau et al. 2015, A.1.2, A.2.2).

    r, z = σ(W e + U s_{i−1} + C c) and s̃ = tanh(W e + U (r ∘ s_{i−1}) + C c). Not torch's GRU:
    there z is the other way round and r acts after U.

    Args:
        attention: attends with s_{i−1}; reads `context_dim` channels.
        input_dim: width of the embedding e of the word before.
        state_dim: n.
        context_dim: width of an annotation, [forward; backward], so 2n.
    """

    def __init__(
        self, attention: Attention, *, input_dim: int, state_dim: int, context_dim: int
    ) -> None:
        super().__init__()
        self.attention = attention
        self.input_dim, self.state_dim, self.context_dim = input_dim, state_dim, context_dim
        self.from_input = lecun_linear(input_dim, 3 * state_dim)
        self.gates_from_state = lecun_linear(state_dim, 2 * state_dim, bias=False)
        self.from_reset_state = lecun_linear(state_dim, state_dim, bias=False)
        self.from_context = lecun_linear(context_dim, 3 * state_dim, bias=False)
        self.to_start = lecun_linear(context_dim // 2, state_dim, bias=False)

    def start(self, annotations: Float[Tensor, "b k c"]) -> Float[Tensor, "b n"]:
        """s_0 = tanh(W_s ←h_1), from the backward half of the first annotation."""
        check_shape("annotations", annotations, "batch", "length", 2 * self.to_start.in_features)
        return self.to_start(annotations[:, 0, annotations.shape[-1] // 2 :]).tanh()

    def forward(
        self,
        embedding: Float[Tensor, "b e"],
        state: Float[Tensor, "b n"],
        annotations: Float[Tensor, "b k c"],
        mask: Bool[Tensor, "b k"] | None = None,
    ) -> Step:
        """From s_{i−1} and the embedding of y_{i−1} to s_i."""
        check_shape("embedding", embedding, state.shape[0], self.input_dim)
        check_width("state", state, self.state_dim)
        context, read = _attend(self.attention, state, annotations, mask)
        check_width("what attention read", context, self.context_dim)
        fed = self.from_input(embedding) + self.from_context(context)
        for_reset, for_update, for_state = fed.chunk(3, -1)
        reset, update = (
            (torch.cat([for_reset, for_update], -1) + self.gates_from_state(state))
            .sigmoid()
            .chunk(2, -1)
        )
        proposal = (for_state + self.from_reset_state(reset * state)).tanh()
        return Step((1 - update) * state + update * proposal, context, read.weights, read.aux)


class TutorialStep(nn.Module):
    """h = GRU(relu(W [e; c]), h), attending with [e; h]: the translation tutorial's decoder.

    Args:
        attention: attends with [e; h]; reads `context_dim` channels.
        input_dim: width of the embedding e.
        state_dim: width of h.
        context_dim: width of c.
    """

    def __init__(
        self, attention: Attention, *, input_dim: int, state_dim: int, context_dim: int
    ) -> None:
        super().__init__()
        self.attention = attention
        self.input_dim, self.state_dim, self.context_dim = input_dim, state_dim, context_dim
        self.combine = lecun_linear(input_dim + context_dim, state_dim)
        self.gru = nn.GRUCell(state_dim, state_dim)

    def forward(
        self,
        embedding: Float[Tensor, "b e"],
        state: Float[Tensor, "b n"],
        annotations: Float[Tensor, "b k c"],
        mask: Bool[Tensor, "b k"] | None = None,
    ) -> Step:
        """The next state; words are log_softmax of a linear layer on it."""
        check_shape("embedding", embedding, state.shape[0], self.input_dim)
        check_width("state", state, self.state_dim)
        query = torch.cat([embedding, state], -1)
        context, read = _attend(self.attention, query, annotations, mask)
        check_width("what attention read", context, self.context_dim)
        fed = self.combine(torch.cat([embedding, context], -1)).relu()
        return Step(self.gru(fed, state), context, read.weights, read.aux)
