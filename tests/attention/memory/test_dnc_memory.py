"""The differentiable neural computer's equations (Methods), written as loops over rows."""

import math

import pytest
import torch

from perceiver.attention.memory import (
    DNCCell,
    DNCMemory,
    DNCState,
    allocation,
    follow_links,
    oneplus,
    update_links,
    update_precedence,
    update_usage,
)

N, W, R, C = 5, 3, 2, 7


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def softmax(xs):
    powers = [math.exp(x) for x in xs]
    return [power / sum(powers) for power in powers]


def loop_content(memory, key, strength):
    scores = []
    for row in memory:
        dot = sum(k * m for k, m in zip(key, row, strict=True))
        norms = math.sqrt(sum(k * k for k in key)) * math.sqrt(sum(m * m for m in row))
        scores.append(strength * dot / (norms + 1e-6))
    return softmax(scores)


def loop_allocation(usage):
    usage = [1e-6 + (1 - 1e-6) * u for u in usage]
    free = sorted(range(len(usage)), key=lambda i: (usage[i], i))
    given, product = [0.0] * len(usage), 1.0
    for index in free:
        given[index] = (1 - usage[index]) * product
        product *= usage[index]
    return given


def loop_step(xi, state):
    """One step of one example on lists of floats, as the paper lists its equations."""
    memory, usage, precedence, links, read_weights, write_weights = state
    xi = iter(xi)

    def take(count):
        return [next(xi) for _ in range(count)]

    read_keys = [take(W) for _ in range(R)]
    read_strengths = [1 + math.log(1 + math.exp(x)) for x in take(R)]
    write_key = take(W)
    write_strength = 1 + math.log(1 + math.exp(take(1)[0]))
    erase = [sigmoid(x) for x in take(W)]
    vector = take(W)
    free = [sigmoid(x) for x in take(R)]
    allocation_gate, write_gate = (sigmoid(x) for x in take(2))
    modes = [softmax(take(3)) for _ in range(R)]

    for i in range(N):
        retention = math.prod(1 - free[r] * read_weights[r][i] for r in range(R))
        usage[i] = (usage[i] + write_weights[i] - usage[i] * write_weights[i]) * retention
    content, room = loop_content(memory, write_key, write_strength), loop_allocation(usage)
    w = [
        write_gate * (allocation_gate * room[i] + (1 - allocation_gate) * content[i])
        for i in range(N)
    ]
    memory = [
        [memory[i][c] * (1 - w[i] * erase[c]) + w[i] * vector[c] for c in range(W)]
        for i in range(N)
    ]
    links = [
        [
            0.0 if i == j else (1 - w[i] - w[j]) * links[i][j] + w[i] * precedence[j]
            for j in range(N)
        ]
        for i in range(N)
    ]
    precedence = [(1 - sum(w)) * precedence[i] + w[i] for i in range(N)]
    reading = []
    for r in range(R):
        last = read_weights[r]
        found = loop_content(memory, read_keys[r], read_strengths[r])
        later = [sum(links[i][j] * last[j] for j in range(N)) for i in range(N)]
        earlier = [sum(links[j][i] * last[j] for j in range(N)) for i in range(N)]
        pi = modes[r]
        reading.append([pi[0] * earlier[i] + pi[1] * found[i] + pi[2] * later[i] for i in range(N)])
    words = [
        sum(reading[r][i] * memory[i][c] for i in range(N)) for r in range(R) for c in range(W)
    ]
    return words, (memory, usage, precedence, links, reading, w)


def as_lists(state, b):
    parts = (state.memory, state.usage, state.precedence, state.links)
    return tuple(part[b].tolist() for part in (*parts, state.read_weights, state.write_weights))


def test_steps_are_the_papers_equations(draw, exact):
    torch.manual_seed(2)
    memory = DNCMemory(C, num_rows=N, row_dim=W, num_reads=R).double()
    memory.to_interface.weight.data *= 5  # gates far from one half
    batch = 3
    state = memory.initial(batch, draw(1))
    expected = [as_lists(state, b) for b in range(batch)]
    for control in draw(9, batch, C):
        words, weights, state = memory.step(control, state)
        interface = (control @ memory.to_interface.weight.T).tolist()
        for b in range(batch):
            wanted, expected[b] = loop_step(interface[b], expected[b])
            exact(words[b], torch.tensor(wanted, dtype=torch.float64))
            for ours, reference in zip(as_lists(state, b), expected[b], strict=True):
                exact(
                    torch.tensor(ours, dtype=torch.float64),
                    torch.tensor(reference, dtype=torch.float64),
                )
        exact(weights.read, state.read_weights)
        exact(weights.write[:, 0], state.write_weights)


def test_weightings_sum_to_at_most_one_and_usage_lies_between_zero_and_one(draw):
    torch.manual_seed(5)
    memory = DNCMemory(C, num_rows=N, row_dim=W, num_reads=R).double()
    memory.to_interface.weight.data *= 9
    state = memory.initial(3, draw(1))
    for control in draw(40, 3, C):
        _, _, state = memory.step(control, state)
        slack = 1 + 1e-12
        for weights in (state.read_weights, state.write_weights, state.precedence, state.usage):
            assert (weights >= 0).all()
        assert (state.usage <= slack).all()
        for weights in (state.read_weights, state.write_weights, state.precedence):
            assert (weights.sum(-1) <= slack).all()
        assert (state.links >= 0).all()
        assert (state.links.sum(-1) <= slack).all()
        assert (state.links.sum(-2) <= slack).all()
        assert (state.links.diagonal(dim1=1, dim2=2) == 0).all()


def test_allocation_gives_the_first_of_the_least_used_rows(exact):
    rows = [[1.0, 0.0, 0.5, 0.0, 1.0], [0.2, 0.3, 0.1, 0.5, 0.4]]
    usage = torch.tensor(rows, dtype=torch.float64)
    given = allocation(usage)
    exact(given, torch.tensor([loop_allocation(row) for row in rows], dtype=torch.float64))
    assert given[0].argmax() == 1  # of the two free rows the lower
    assert given[0, 3] < 2e-6
    assert given[1].argsort(descending=True).tolist()[0] == 2


def test_rows_that_are_hardly_used_are_told_apart_in_single_precision():
    """1e-6 + u rounds both to the same number; the row that is used less still comes first."""
    given = allocation(torch.tensor([[4e-14, 2e-14, 1.0]]))
    assert given.argmax() == 1
    assert allocation(torch.tensor([[2e-14, 2e-14, 1.0]])).argmax() == 0


def test_full_memory_allocates_next_to_nothing():
    assert allocation(torch.ones(1, N)).sum() < 1e-6


def test_freed_rows_are_unused_again_and_written_ones_are_used(exact):
    one, zero = torch.ones(1, N).double(), torch.zeros(1, N).double()
    reads = torch.eye(N).double()[None, :2]
    freed = update_usage(one, zero, reads, torch.tensor([[1.0, 0.0]]).double())
    exact(freed, torch.tensor([[0.0, 1.0, 1.0, 1.0, 1.0]]).double())
    exact(update_usage(zero, reads[:, 1], reads, torch.zeros(1, 2).double()), reads[:, 1])


def test_links_lead_from_each_written_row_to_the_next_and_back(exact):
    links, precedence = torch.zeros(1, N, N).double(), torch.zeros(1, N).double()
    rows = torch.eye(N).double()
    for row in (3, 0, 4):
        links = update_links(links, precedence, rows[None, row])
        precedence = update_precedence(precedence, rows[None, row])
    exact(precedence, rows[None, 4])
    later, earlier = follow_links(links, rows[None, [3, 0, 4]])
    exact(later, torch.stack([rows[0], rows[4], 0 * rows[0]])[None])
    exact(earlier, torch.stack([0 * rows[0], rows[3], rows[0]])[None])


def test_oneplus_is_one_plus_softplus(exact):
    x = torch.tensor([-3.0, 0.0, 2.0]).double()
    exact(oneplus(x), 1 + torch.log(1 + torch.exp(x)))


def test_step_has_the_right_gradients_with_respect_to_everything(draw):
    torch.manual_seed(4)
    memory = DNCMemory(2, num_rows=3, row_dim=2, num_reads=1).double()
    memory.to_interface.weight.data *= 3
    state = memory.initial(1, draw(1))
    for control in draw(3, 1, 2):  # away from the symmetric start
        _, _, state = memory.step(control, state)
    parts = [part.detach().requires_grad_() for part in vars(state).values()]

    def step(control, *parts):
        words, weights, after = memory.step(control, DNCState(*parts))
        return words, weights.read, weights.write, *vars(after).values()

    assert torch.autograd.gradcheck(step, (draw(1, 2).requires_grad_(), *parts))


@pytest.mark.parametrize("controller", ["lstm", "feed_forward"])
def test_gradients_through_many_steps_are_finite_from_an_empty_memory(controller):
    torch.manual_seed(0)
    cell = DNCCell(3, 11, controller=controller, num_rows=N, row_dim=W, num_reads=R)
    assert not list(cell.buffers())
    inputs = torch.randn(30, 2, 3, requires_grad=True)
    state, total = cell.initial(2, inputs), 0.0
    for x in inputs:
        out, _, state = cell.step(x, state)
        total = total + out.square().sum()
    total.backward()
    assert out.shape == (2, 11 + R * W)
    assert inputs.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in cell.parameters())


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="num_reads=0 must be at least 1"):
        DNCMemory(5, num_reads=0)
