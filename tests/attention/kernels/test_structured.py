"""The structured op against its definition: a softmax over all scores at once, in float64."""

from __future__ import annotations

import pytest
import torch

from benchmarks.memory import allocated
from perceiver.attention.kernels.structured import chunks, tokens
from perceiver.attention.kernels.structured.attend import attend

B, R, K, LINES, COLUMNS, T = 3, 5, 4, 7, 11, 6
M = LINES * COLUMNS
KINDS = ("content", "code", "grid")


def definition(query, content, rho=None, code=None, query_tail=None, query_columns=None):
    """What `attend` computes, spelled out."""
    keep = content[..., -1] != 0
    scores = query @ content.mT
    if query_columns is not None:
        grid = query_tail[..., :, None] + query_columns[..., None, :]
        scores = scores + rho[:, None] * grid.flatten(2)
    elif code is not None:
        scores = scores + rho[:, None] * (query_tail @ code.T)
    scores = scores.masked_fill(~keep[:, None], float("-inf"))
    lse = scores.logsumexp(-1)
    shift = lse.masked_fill(lse == float("-inf"), 0.0)[..., None]
    weights = torch.where(keep[:, None], (scores - shift).exp(), 0.0)
    content_read, scaled = weights @ content, None if rho is None else weights * rho[:, None]
    if query_columns is not None:
        grid = scaled.unflatten(-1, grid.shape[2:])
        return content_read, grid.sum(-1), grid.sum(-2), lse
    return content_read, None if code is None else scaled @ code, None, lse


def problem(kind, *, scale=1.0, batch=B, dtype=torch.float64, masked=True):
    """Arguments of `attend`; the second example has nothing to attend to if masked."""
    torch.manual_seed(7)
    keep = torch.rand(B, M) > 0.3 if masked else torch.ones(B, M, dtype=torch.bool)
    keep[1] &= not masked
    like = {"dtype": dtype}
    content = torch.randn(B, M, K, **like) * keep[..., None]
    content[..., -1] = keep.to(dtype)
    arguments = {"query": scale * torch.randn(batch, R, K, **like), "content": content}
    if kind != "content":
        arguments["rho"] = (torch.rand(B, M, **like) + 0.5) * keep
    if kind == "code":
        arguments["code"] = torch.randn(M, T, **like)
        arguments["query_tail"] = torch.randn(batch, R, T, **like)
    if kind == "grid":
        arguments["query_tail"] = torch.randn(batch, R, LINES, **like)
        arguments["query_columns"] = torch.randn(batch, R, COLUMNS, **like)
    return {name: value.requires_grad_() for name, value in arguments.items()}, keep


def results(partial):
    return [x for x in partial if x is not None]


def gradients(partial, arguments, keep):
    """Of a sum that weighs every finite number of every result; masked tokens left out."""
    torch.manual_seed(11)
    total = 0.0
    for x in results(partial):
        weight = torch.randn(x.shape, dtype=torch.float64)
        total = total + (x.masked_fill(~x.isfinite(), 0.0) * weight).sum()
    grads = dict(zip(arguments, torch.autograd.grad(total, arguments.values()), strict=True))
    # The mask channel is a fact, not a variable, and masked tokens are constants.
    grads["content"] = grads["content"][..., :-1] * keep[..., None]
    if "rho" in grads:
        grads["rho"] = grads["rho"] * keep
    return grads


@pytest.mark.parametrize(("queries", "tokens"), [(0, 9), (5, 0), (0, 0)])
@pytest.mark.parametrize("kind", ["content", "code"])
def test_nothing_to_attend_to_and_nobody_who_attends(kind, queries, tokens):
    content = torch.ones(2, tokens, K, requires_grad=True)
    query = torch.randn(1, queries, K, requires_grad=True)
    code = torch.randn(tokens, T), torch.randn(1, queries, T)
    given = {} if kind == "content" else dict(zip(("code", "query_tail"), code, strict=True))
    rho = {} if kind == "content" else {"rho": torch.ones(2, tokens)}
    found = attend(query, content, **rho, **given)
    assert found[0].shape == (2, queries, K)
    assert found[-1].shape == (2, queries)
    if tokens == 0:
        assert not found[0].any()
        assert (found[-1] == float("-inf")).all()
    found[0].sum().backward()
    assert query.grad.shape == query.shape
    assert content.grad.shape == content.shape


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, B], ids=["one query for all", "a query each"])
@pytest.mark.parametrize("scale", [1.0, 50.0], ids=["small scores", "scores past e60"])
@pytest.mark.parametrize("numbers", [1 << 20, 50], ids=["one chunk", "many chunks"])
def test_attend_is_a_softmax_over_all_scores(kind, batch, scale, numbers, monkeypatch):
    monkeypatch.setattr(tokens, "CHUNK_NUMBERS", numbers)
    arguments, keep = problem(kind, scale=scale, batch=batch)
    is_safe = chunks._is_safe(*(arguments.get(name) for name in (
        "query", "content", "rho", "code", "query_tail", "query_columns")))  # fmt: skip
    assert is_safe is (scale == 1.0)
    ours, expected = attend(**arguments), definition(**arguments)
    for x, y in zip(results(ours), results(expected), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)
    ours, expected = (gradients(x, arguments, keep) for x in (ours, expected))
    for name in arguments:
        torch.testing.assert_close(ours[name], expected[name], rtol=1e-9, atol=1e-9, msg=name)


def test_only_a_cpu_is_asked_for_numbers():
    arguments = {name: x.detach().to("meta") for name, x in problem("grid")[0].items()}
    names = ("query", "content", "rho", "code", "query_tail", "query_columns")
    assert not chunks._is_safe(*(arguments.get(name) for name in names))
    assert chunks._some(torch.zeros(3, dtype=torch.bool, device="meta"))
    assert not chunks._some(torch.zeros(3, dtype=torch.bool))


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_without_tokens_reads_zeros_and_has_no_gradients(kind):
    arguments, _ = problem(kind, batch=B)
    partial = attend(**arguments)
    assert partial.lse[1].eq(float("-inf")).all()
    read = [x[1] for x in (partial.content, partial.tail, partial.columns) if x is not None]
    assert all(x.eq(0).all() for x in read)
    sum(x.square().sum() for x in read).backward()
    assert all(x.grad.eq(0).all() for x in arguments.values())


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_is_as_exact_as_single_precision_can_be(kind):
    double, keep = problem(kind)
    single = {name: x.detach().float().requires_grad_() for name, x in double.items()}
    for x, y in zip(results(attend(**single)), results(definition(**double)), strict=True):
        torch.testing.assert_close(x.double(), y, rtol=2e-6, atol=2e-6)
    ours = gradients(attend(**single), single, keep)
    expected = gradients(definition(**double), double, keep)
    for name in double:
        torch.testing.assert_close(ours[name].double(), expected[name], rtol=2e-5, atol=2e-5)


def test_gradients_of_tokens_are_not_computed_when_nothing_needs_them(monkeypatch):
    monkeypatch.setattr(chunks, "_token_gradients", None)  # calling it would raise
    arguments, _ = problem("grid")
    fixed = {name: x.detach() for name, x in arguments.items() if name in ("content", "rho")}
    attend(**arguments | fixed).content.sum().backward()
    assert arguments["query_columns"].grad is not None


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_around_forward_and_backward_changes_nothing(kind):
    def run(enabled):
        arguments = {
            name: x.detach().float().requires_grad_() for name, x in problem(kind)[0].items()
        }
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            partial = attend(**arguments)
            sum(x.square().sum() for x in results(partial)[:-1]).backward()
        return [x.grad for x in arguments.values()]

    for ours, expected in zip(run(True), run(False), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=0)


def test_the_op_satisfies_what_torch_asks_of_custom_operators():
    arguments, _ = problem("grid", batch=1, masked=False)
    names = ("query", "content", "rho", "code", "query_tail", "query_columns")
    torch.library.opcheck(
        torch.ops.perceiver.structured.default,
        tuple(arguments.get(name) for name in names),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_of_many_tokens_only_chunks_of_scores_exist(kind):
    """Beside its results and gradients a training step holds a few chunks, however many tokens."""
    rows, lines, columns = 64, 400, 500
    numbers = rows * lines * columns  # of scores, 49 MiB
    arguments = {
        "query": torch.randn(1, rows, K) / 9,
        "content": torch.ones(1, lines * columns, K, requires_grad=True),
    }
    if kind != "content":
        arguments["rho"] = torch.ones(1, lines * columns)
    if kind == "code":
        arguments |= {
            "code": torch.randn(lines * columns, T),
            "query_tail": torch.randn(1, rows, T) / 9,
        }
    if kind == "grid":
        arguments |= {
            "query_tail": torch.randn(1, rows, lines) / 9,
            "query_columns": torch.randn(1, rows, columns) / 9,
        }

    def step():
        attend(**arguments).content.sum().backward()

    few = 6 * (1 << 20) + 4 * arguments["content"].numel()
    assert few < numbers
    assert allocated(step, "cpu") < 4 * few
