"""The Neural Turing Machine's equations, written as loops over rows."""

import math

import pytest
import torch

from perceiver.attention.memory import (
    Addressing,
    NTMCell,
    NTMMemory,
    address,
    content_weights,
    interpolate,
    read,
    sharpen,
    shift,
    write,
)

B, H, N, W = 2, 3, 7, 5


def loop_content(memory, key, strength, eps=1e-6):
    weights = torch.zeros(B, key.shape[1], N, dtype=memory.dtype)
    for b in range(B):
        for h in range(key.shape[1]):
            scores = []
            for i in range(N):
                dot = sum(key[b, h, c] * memory[b, i, c] for c in range(W))
                norms = math.sqrt(sum(key[b, h, c] ** 2 for c in range(W)))
                norms *= math.sqrt(sum(memory[b, i, c] ** 2 for c in range(W)))
                scores.append(math.exp(strength[b, h] * dot / (norms + eps)))
            for i in range(N):
                weights[b, h, i] = scores[i] / sum(scores)
    return weights


def loop_shift(weights, shifts):
    reach, out = shifts.shape[-1] // 2, torch.zeros_like(weights)
    for b in range(weights.shape[0]):
        for h in range(weights.shape[1]):
            for i in range(N):
                for j in range(N):
                    for m in range(-reach, reach + 1):
                        if (i - j) % N == m % N:
                            out[b, h, i] += weights[b, h, j] * shifts[b, h, m + reach]
    return out


def loop_write(memory, weights, erase, add):
    memory = memory.clone()
    for b in range(B):
        for i in range(N):
            for c in range(W):
                for h in range(weights.shape[1]):
                    memory[b, i, c] *= 1 - weights[b, h, i] * erase[b, h, c]
                for h in range(weights.shape[1]):
                    memory[b, i, c] += weights[b, h, i] * add[b, h, c]
    return memory


def test_content_weights_are_a_softmax_of_the_cosine_times_the_strength(draw, exact):
    memory, key, strength = draw(B, N, W), draw(B, H, W), draw(B, H).exp()
    exact(content_weights(memory, key, strength), loop_content(memory, key, strength))


def test_empty_memory_is_addressed_evenly_with_finite_gradients(draw, exact):
    memory = torch.zeros(B, N, W, dtype=torch.float64, requires_grad=True)
    weights = content_weights(memory, draw(B, H, W), draw(B, H).exp())
    exact(weights, torch.full_like(weights, 1 / N))
    (weights * draw(B, H, N)).sum().backward()
    assert memory.grad.isfinite().all()


def test_permuting_rows_permutes_content_weights(draw, exact):
    memory, key, strength = draw(B, N, W), draw(B, H, W), draw(B, H).exp()
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    permuted = content_weights(memory[:, order], key, strength)
    exact(permuted, content_weights(memory, key, strength)[..., order])


def test_gate_of_one_takes_the_content_and_of_zero_the_last_weights(draw, exact):
    content, previous, gate = draw(B, H, N), draw(B, H, N), draw(B, H).sigmoid()
    for g, wanted in ((torch.ones_like(gate), content), (torch.zeros_like(gate), previous)):
        exact(interpolate(content, previous, g), wanted)
    wanted = gate[..., None] * content + (1 - gate[..., None]) * previous
    exact(interpolate(content, previous, gate), wanted)


def test_shift_by_one_moves_a_row_to_the_next_and_the_last_to_the_first():
    weights = torch.eye(N)[None, [0, 2, N - 1]]
    forward = torch.tensor([0.0, 0.0, 1.0]).expand(1, 3, 3)
    moved = shift(weights, forward).argmax(-1)
    assert moved.tolist() == [[1, 3, 0]]


@pytest.mark.parametrize("reach", [0, 1, 2, 3])
def test_shift_is_the_circular_convolution(draw, exact, reach):
    weights, shifts = draw(B, H, N).softmax(-1), draw(B, H, 2 * reach + 1).softmax(-1)
    exact(shift(weights, shifts), loop_shift(weights, shifts))


def test_sharpening_is_the_normalised_power(draw, exact):
    weights, gamma = draw(B, H, N).softmax(-1), 1 + draw(B, H).exp()
    powers = weights ** gamma[..., None]
    exact(sharpen(weights, gamma), powers / powers.sum(-1, keepdim=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_sharpening_survives_zeros_and_powers_that_underflow(dtype):
    weights = torch.tensor([[[1e-3, 2e-3, 0.0]], [[1.0, 0.0, 0.0]]], dtype=dtype)
    weights.requires_grad_()
    gamma = torch.full((2, 1), 60.0, dtype=dtype, requires_grad=True)
    sharp = sharpen(weights, gamma)
    wanted = torch.eye(3, dtype=dtype)[[1, 0]][:, None]
    torch.testing.assert_close(sharp, wanted)
    sharp[..., 0].sum().backward()
    assert weights.grad.isfinite().all()
    assert gamma.grad.isfinite().all()


def test_addressing_follows_equations_5_to_9(draw, exact):
    memory, previous = draw(B, N, W), draw(B, H, N).softmax(-1)
    how = Addressing(
        key=draw(B, H, W),
        strength=draw(B, H).exp(),
        gate=draw(B, H).sigmoid(),
        shift=draw(B, H, 3).softmax(-1),
        sharpness=1 + draw(B, H).exp(),
    )
    content = loop_content(memory, how.key, how.strength)
    gate = how.gate[..., None]
    moved = loop_shift(gate * content + (1 - gate) * previous, how.shift)
    powers = moved ** how.sharpness[..., None]
    weights = address(memory, previous, how)
    exact(weights, powers / powers.sum(-1, keepdim=True))
    exact(weights.sum(-1), torch.ones(B, H, dtype=torch.float64))


@pytest.mark.parametrize("heads", [1, 3])
def test_all_heads_erase_before_any_adds(draw, exact, heads):
    memory, weights = draw(B, N, W), draw(B, heads, N).softmax(-1)
    erase, add = draw(B, heads, W).sigmoid(), draw(B, heads, W)
    exact(write(memory, weights, erase, add), loop_write(memory, weights, erase, add))


def test_read_is_the_weighted_sum_of_rows(draw, exact):
    memory, weights = draw(B, N, W), draw(B, H, N).softmax(-1)
    wanted = torch.stack(
        [
            torch.stack([sum(weights[b, h, i] * memory[b, i] for i in range(N)) for h in range(H)])
            for b in range(B)
        ]
    )
    exact(read(memory, weights), wanted)


def test_functions_have_the_right_gradients(draw):
    memory, key = draw(1, 3, 2), draw(1, 2, 2)
    strength, gate, gamma = draw(1, 2).exp(), draw(1, 2).sigmoid(), 1 + draw(1, 2).exp()
    shifts, previous = draw(1, 2, 3).softmax(-1), draw(1, 2, 3).softmax(-1)
    erase, add = draw(1, 2, 2).sigmoid(), draw(1, 2, 2)

    def step(memory, key, strength, gate, shifts, gamma, previous, erase, add):
        weights = address(memory, previous, Addressing(key, strength, gate, shifts, gamma))
        return read(write(memory, weights, erase, add), weights)

    inputs = [memory, key, strength, gate, shifts, gamma, previous, erase, add]
    assert torch.autograd.gradcheck(step, [x.requires_grad_() for x in inputs])


@torch.no_grad()
def test_step_is_the_papers_equations_with_the_layers_outputs(draw, exact):
    torch.manual_seed(3)
    memory = NTMMemory(11, num_rows=N, row_dim=W, num_reads=2, num_writes=3, max_shift=2).double()
    state = memory.initial(B, draw(1))
    exact(state.memory, torch.full((B, N, W), 1e-6, dtype=torch.float64))
    for control in draw(4, B, 11):
        words, weights, after = memory.step(control, state)
        raw = (control @ memory.to_heads.weight.T + memory.to_heads.bias).view(B, 5, W + 8)
        key, strength = raw[..., :W], (1 + raw[..., W].exp()).log()
        gate, shifts = 1 / (1 + (-raw[..., W + 1]).exp()), raw[..., W + 2 : W + 7].softmax(-1)
        gamma = 1 + (1 + raw[..., W + 7].exp()).log()
        content = loop_content(state.memory, key, strength)
        mixed = gate[..., None] * content + (1 - gate[..., None]) * state.weights
        powers = loop_shift(mixed, shifts) ** gamma[..., None]
        wanted = powers / powers.sum(-1, keepdim=True)
        exact(torch.cat(weights, dim=1), wanted)
        exact(words, (wanted[:, :2] @ state.memory).flatten(1))
        vectors = (control @ memory.to_writes.weight.T + memory.to_writes.bias).view(B, 3, 2, W)
        erased = vectors[:, :, 0].sigmoid()
        exact(after.memory, loop_write(state.memory, wanted[:, 2:], erased, vectors[:, :, 1]))
        state = after


@pytest.mark.parametrize("controller", ["lstm", "feed_forward"])
def test_cell_carries_its_whole_state_in_the_argument(controller):
    torch.manual_seed(0)
    cell = NTMCell(3, 11, controller=controller, num_rows=N, row_dim=W, num_writes=2)
    assert not list(cell.buffers())
    inputs = torch.randn(5, B, 3)
    first, second = cell.initial(B, inputs), cell.initial(B, inputs)
    for x in inputs:  # two sequences in turns do not disturb one another
        out, _, first = cell.step(x, first)
        again, weights, second = cell.step(x, second)
        torch.testing.assert_close(out, again, rtol=0, atol=0)
    assert out.shape == (B, cell.output_dim) == (B, 11 + W)
    assert weights.read.shape == (B, 1, N)
    assert weights.write.shape == (B, 2, N)
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in cell.parameters())


def test_bad_options_get_one_sentence():
    with pytest.raises(ValueError, match="num_rows=0 must be at least 1"):
        NTMMemory(5, num_rows=0)
    with pytest.raises(ValueError, match=r"max_shift=2 .* num_rows=3"):
        NTMMemory(5, num_rows=3, max_shift=2)
    with pytest.raises(ValueError, match="controller='gru' must be lstm or feed_forward"):
        NTMCell(3, controller="gru")
    cell = NTMCell(3, 5, num_rows=7)
    with pytest.raises(ValueError, match=r"x has shape \(1, 2\); expected \(1, 3\)"):
        cell.step(torch.zeros(1, 2), cell.initial(1, torch.zeros(1)))
