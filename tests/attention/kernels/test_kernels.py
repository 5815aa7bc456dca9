"""Every kernel against the dense one: results and gradients, on random masks with an empty row."""

from __future__ import annotations

import pytest
import torch

from perceiver.attention import AXES, Attention, TutorialAttention
from perceiver.attention.kernels import chunked as chunked_module
from perceiver.attention.kernels import linear as linear_module
from perceiver.attention.kernels import select
from perceiver.attention.kernels.chunked import Chunked, chunked
from perceiver.attention.patterns import Causal, Lengths

# What each setting changes; the kernels that serve it besides the dense one.
FUSED = ("sdpa", "flex", "chunked")
SETTINGS = {
    "plain": ({}, FUSED),
    "unscaled": ({"options": {"dot": {"scale": 1.0}}}, FUSED),
    "learned scale": ({"options": {"dot": {"scale": "learned"}}}, FUSED),
    "general": ({"score": "general"}, FUSED),
    "cosine": ({"score": "cosine"}, FUSED),
    "neg_l2": ({"score": "neg_l2"}, FUSED),
    "feature_dot": ({"score": "feature_dot"}, FUSED),
    "additive": ({"score": "additive"}, ("chunked",)),
    "location": (
        {"score": "location", "options": {"location": {"max_len": 17, "bias": True}}},
        ("chunked",),
    ),
    "causal": ({"pattern": "causal"}, FUSED),
    "window": ({"pattern": "window", "options": {"window": {"left": 2, "right": 1}}}, FUSED),
    "alibi": ({"position": "alibi"}, FUSED),
    "t5": ({"position": "t5_buckets"}, FUSED),
    "rope": ({"position": "rope"}, FUSED),
    "transformer_xl": ({"position": "transformer_xl"}, FUSED),
    "shaw keys": (
        {"position": "relative_table", "options": {"relative_table": {"on_values": False}}},
        FUSED,
    ),
    "shaw": ({"position": "relative_table"}, ("chunked",)),
    "softcap": ({"softcap": 0.7}, ("flex", "chunked")),
    "capped distance": ({"softcap": 0.7, "score": "neg_l2"}, ("flex", "chunked")),
    "sink": ({"options": {"softmax": {"sink": "learned"}}}, ("flex", "chunked")),
    "off by one, by distance": (
        {"score": "neg_l2", "options": {"softmax": {"sink": 0.0}}},
        ("flex", "chunked"),
    ),
    "sparsemax": ({"normaliser": "sparsemax"}, ("chunked",)),
    "sigmoid": ({"normaliser": "sigmoid"}, ("chunked",)),
    "argmax": ({"normaliser": "argmax"}, ("chunked",)),
    "grouped": ({"options": {"qkv": {"num_kv_heads": 1}}}, FUSED),
    "talking": ({"options": {"qkv": {"is_talking": True}}}, ("chunked",)),
    "registers": ({"options": {"qkv": {"num_registers": 3}}}, FUSED),
    "registers and alibi": (
        {"position": "alibi", "options": {"qkv": {"num_registers": 3}}},
        FUSED,
    ),
    "differential": ({"heads": "differential"}, FUSED),
    "linear": ({"score": "feature_dot", "normaliser": "sum"}, ("chunked",)),
}
LOCAL = {"grid": [2, 3], "size": 3}
# In these the weights of a query depend on those of the query before, so there are no chunks.
SEQUENTIAL = {"location_aware"}
CASES = [(name, kernel) for name, (_, kernels) in SETTINGS.items() for kernel in kernels]


def build(name):
    torch.manual_seed(3)
    attention = Attention(12, 10, num_heads=2, qk_dim=12, v_dim=8, **SETTINGS[name][0]).double()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return attention


def run(attention, kernel, x, context, **options):
    """The result and the gradients of inputs and parameters."""
    attention.kernel = kernel
    attention.zero_grad()
    x, context = x.clone().requires_grad_(), context.clone().requires_grad_()
    out = attention(x, context, **options).out
    out.backward(torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out))
    gradients = {n: p.grad for n, p in attention.named_parameters()}
    return out.detach(), {"x": x.grad, "context": context.grad, **gradients}


@pytest.fixture(params=[(5, 13), (13, 5)], ids=["more keys", "more queries"])
def inputs(request):
    queries, keys = request.param
    x = torch.randn(2, queries, 12, dtype=torch.float64)
    context = torch.randn(2, keys, 10, dtype=torch.float64)
    mask = torch.rand(2, queries, keys) > 0.4
    mask[0, 2] = False
    return x, context, mask


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of three keys or queries, so that there are several."""
    monkeypatch.setattr(Chunked, "run", lambda self, problem: chunked(problem, size=3))


def close(ours, dense, what=""):
    torch.testing.assert_close(ours, dense, rtol=1e-9, atol=1e-9, msg=lambda m: f"{what}: {m}")


@pytest.mark.parametrize(("name", "kernel"), CASES)
@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
def test_kernels_equal_the_dense_one(name, kernel, inputs, masked, small_chunks):
    x, context, mask = inputs
    attention = build(name)
    options = {"mask": mask} if masked else {}
    if kernel == "flex":
        if not masked and name != "plain":
            pytest.skip("slow on a CPU, and masked is the harder case")
        with torch.no_grad():
            attention.kernel = "dense"
            expected = attention(x, context, **options).out
            attention.kernel = "flex"
            out = attention(x, context, **options).out
        # FlexAttention sums in float32.
        torch.testing.assert_close(out, expected, rtol=2e-5, atol=2e-5)
        return
    expected, gradients = run(attention, "dense", x, context, **options)
    out, others = run(attention, kernel, x, context, **options)
    close(out, expected, "out")
    for parameter, gradient in gradients.items():
        if gradient is not None:
            close(others[parameter], gradient, parameter)


def test_every_score_is_computed_in_chunks():
    scores = {options.get("score", "dot") for options, kernels in SETTINGS.values()}
    assert scores == set(AXES["score"]) - SEQUENTIAL


def test_a_location_score_in_chunks_gives_an_example_alone_what_it_has_in_a_batch(monkeypatch):
    """More scores than fit are computed in chunks, by the same kernel that is asked for above."""
    attention = TutorialAttention(8, 4, max_len=23)
    query, context = torch.randn(3, 5, 8), torch.randn(3, 23, 4)
    alone = attention(query[:1], context[:1]).out
    monkeypatch.setattr(select, "ROOMY", 2 * 5 * 23)
    monkeypatch.setattr(chunked_module, "CHUNK_NUMBERS", 5 * 7)
    problem = attention.problem(query, context)
    assert select.select_kernel("auto", problem).name == "chunked"
    torch.testing.assert_close(attention(query, context).out[:1], alone)


@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
@pytest.mark.parametrize("pattern", ["full", "causal"])
def test_the_linear_kernel_equals_the_dense_one(inputs, masked, pattern):
    x, context, mask = inputs
    torch.manual_seed(3)
    attention = Attention(
        12, 10, num_heads=2, qk_dim=12, score="feature_dot", normaliser="sum", pattern=pattern
    ).double()
    keys = mask[:, 0].clone()
    keys[0] = False
    options = {"mask": keys} if masked else {}
    expected, gradients = run(attention, "dense", x, context, **options)
    out, others = run(attention, "linear", x, context, **options)
    close(out, expected)
    for name, gradient in gradients.items():
        close(others[name], gradient, name)


def test_the_linear_kernel_takes_several_chunks(monkeypatch):
    monkeypatch.setattr(linear_module, "CHUNK", 3)
    attention = Attention(6, score="feature_dot", normaliser="sum", pattern="causal").double()
    for queries, keys in ((7, 11), (11, 7), (1, 5), (7, 7)):
        x, context = torch.randn(2, queries, 6).double(), torch.randn(2, keys, 6).double()
        expected, gradients = run(attention, "dense", x, context)
        out, others = run(attention, "linear", x, context)
        close(out, expected)
        for name, gradient in gradients.items():
            close(others[name], gradient, name)


def test_the_linear_kernel_sums_in_single_precision_under_autocast():
    attention = Attention(8, score="feature_dot", normaliser="sum", kernel="linear")
    attention.heads.to_out = torch.nn.Identity()
    x = torch.randn(1, 501, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = attention(x).out
        query, key, value = (z.double() for z in attention.heads.project(x, x))
    weights = attention.score(query, key)
    exact = (weights @ value / weights.sum(-1, keepdim=True))[:, 0]
    # What is projected is rounded to bfloat16, and the result; sums of 501 terms are not.
    assert (out == exact.bfloat16()).double().mean() > 0.98


@pytest.mark.parametrize("kernel", ["sdpa", "chunked"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_kernels_agree_in_every_precision(kernel, dtype, inputs, small_chunks):
    x, context, mask = (t.to(dtype) if t.is_floating_point() else t for t in inputs)
    attention = build("alibi").to(dtype)
    expected, gradients = run(attention, "dense", x, context, mask=mask)
    out, others = run(attention, kernel, x, context, mask=mask)
    # Twenty roundings of the type, relative to numbers of about 3.
    tolerance = 60 * torch.finfo(dtype).eps
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    for name in ("x", "context"):
        assert others[name].isfinite().all()
        scale = gradients[name].abs().max().item()
        torch.testing.assert_close(
            others[name], gradients[name], rtol=tolerance, atol=tolerance * max(scale, 1)
        )


@pytest.mark.parametrize("kernel", ["dense", "sdpa", "chunked", "flex"])
@pytest.mark.parametrize("fixed", ["bh", "b", "bq", "hk", ""])
@pytest.mark.parametrize("name", ["plain", "alibi", "registers"])
def test_a_bias_is_added_to_the_scores(kernel, fixed, name, inputs, small_chunks):
    x, context, mask = inputs
    sizes = {"b": 2, "h": 2, "q": x.shape[1], "k": context.shape[1]}
    bias = torch.randn([1 if axis in fixed else n for axis, n in sizes.items()]).double()
    attention = build(name)
    with torch.no_grad():
        plain = attention(x, context, mask=mask, need_weights=True).weights
        # e to the bias as a factor; registers have the rest of a row that sees anything.
        rest = (1 - plain.sum(-1, keepdim=True)) * mask.any(-1)[:, None, :, None]
        scaled = plain * bias.exp()
        total = scaled.sum(-1, keepdim=True) + rest
        expected = scaled / total.where(total > 0, 1.0)
        seen = attention(x, context, mask=mask, bias=bias, need_weights=True)
        close(seen.weights, expected)
        attention.kernel = kernel
        close(attention(x, context, mask=mask, bias=bias).out, seen.out)


@pytest.mark.parametrize("kernel", ["sdpa", "chunked"])
def test_a_bias_of_minus_infinity_leaves_out_also_a_whole_chunk(kernel, inputs, small_chunks):
    x, context, _ = inputs
    attention, seen = build("plain"), context.shape[1] // 2
    bias = torch.zeros(context.shape[1]).double()
    bias[:seen] = float("-inf")
    attention.kernel = kernel
    close(attention(x, context, bias=bias).out, attention(x, context[:, seen:]).out)


EMPTIED = {
    "registers": {"options": {"qkv": {"num_registers": 2}}},
    "padding": {"pattern": "local2d", "options": {"local2d": LOCAL | {"border": "zero_pad"}}},
    "padding with positions": {
        "pattern": "local2d",
        "position": "relative_table2d",
        "options": {
            "local2d": LOCAL | {"border": "zero_pad"},
            "relative_table2d": LOCAL,
        },
    },
}


@pytest.mark.parametrize("kernel", ["dense", "sdpa", "chunked", "flex"])
@pytest.mark.parametrize("name", EMPTIED)
def test_a_row_that_a_bias_empties_is_zero_beside_keys_that_are_not_of_the_context(name, kernel):
    attention = Attention(8, num_heads=2, kernel=kernel, **EMPTIED[name]).double()
    torch.nn.init.ones_(attention.heads.to_out.bias)
    x, keep = torch.randn(2, 6, 8).double(), torch.rand(2, 1, 6, 6) > 0.3
    keep[1, :, 3], keep[0, :, :, 0] = False, True
    bias = torch.zeros(2, 1, 6, 6).double().masked_fill(~keep, float("-inf"))
    with torch.no_grad():
        out = attention(x, bias=bias).out
        assert (out[1, 3] == 0).all()
        torch.testing.assert_close(out, attention(x, mask=keep).out, rtol=2e-5, atol=2e-5)


def test_gradients_reach_a_bias(inputs):
    x, context, mask = inputs
    attention, bias = build("plain"), torch.randn(x.shape[1], context.shape[1]).double()
    found = []
    for kernel in ("dense", "sdpa", "chunked"):
        attention.kernel = kernel
        given = bias.clone().requires_grad_()
        attention(x, context, mask=mask, bias=given).out.square().sum().backward()
        found.append(given.grad)
    assert found[0].any()
    close(found[1], found[0])
    close(found[2], found[0])


@pytest.mark.parametrize("kernel", ["linear", "folded"])
def test_a_kernel_without_scores_takes_no_bias(kernel, inputs):
    x, context, _ = inputs
    attention = build("linear" if kernel == "linear" else "plain")
    attention.kernel = kernel
    with pytest.raises(ValueError, match=f"kernel={kernel} refuses this attention; bias"):
        attention(x, context, bias=torch.zeros(context.shape[1]))


def test_a_bias_of_another_kind_or_size_is_refused(inputs):
    x, context, mask = inputs
    with pytest.raises(TypeError, match=r"bias is torch\.bool.*mask="):
        build("plain")(x, context, bias=mask)
    with pytest.raises(ValueError, match=r"bias has shape \(4, 99\), which does not broadcast"):
        build("plain")(x, context, bias=torch.zeros(4, 99))


@pytest.mark.parametrize("kernel", ["dense", "sdpa", "chunked", "flex"])
def test_an_empty_row_gives_zeros_and_has_no_gradient(kernel, inputs, small_chunks):
    x, context, mask = inputs
    attention = build("t5")
    torch.nn.init.normal_(attention.heads.to_out.bias)
    attention.kernel = kernel
    query = x.clone().requires_grad_(kernel != "flex")
    with torch.set_grad_enabled(kernel != "flex"):
        out = attention(query, context, mask=mask).out
        assert (out[0, 2] == 0).all()
        assert (out[0, 1] != 0).any()
        if kernel != "flex":
            out.sum().backward()
            assert query.grad.isfinite().all()
            assert (query.grad[0, 2] == 0).all()


def test_chunks_remember_the_log_sum_exp(inputs, small_chunks):
    x, context, mask = inputs
    x, context, mask = x[:, :5], context[:, :5], mask[:, :5, :5]
    attention = build("plain")
    expected = attention(x, context, mask=mask, need_weights=True).aux.lse
    attention.kernel = "chunked"
    close(attention(x, context, mask=mask).aux.lse, expected)


@pytest.mark.parametrize(("queries", "keys"), [(3, 101), (101, 3)])
def test_chunked_attention_holds_one_chunk_of_scores_at_a_time(monkeypatch, queries, keys):
    """The scores that are made at once, forward and backward; none is kept between the two."""
    sizes = []
    attention = Attention(8, score="additive", kernel="chunked")
    attention.score.register_forward_hook(lambda module, args, out: sizes.append(out.numel()))
    # A pair's score takes 8 hidden units: chunks of 16 along the longer side.
    monkeypatch.setattr(chunked_module, "CHUNK_NUMBERS", 8 * 3 * 16)
    x, context = torch.randn(1, queries, 8, requires_grad=True), torch.randn(1, keys, 8)
    out = attention(x, context).out
    assert len(sizes) == 7
    out.sum().backward()
    assert len(sizes) == 14
    assert max(sizes) == 3 * 16


@pytest.mark.parametrize("kernel", ["dense", "sdpa", "chunked"])
def test_dropout_is_of_weights_and_unbiased(kernel, small_chunks):
    attention = build("plain").train()
    attention.dropout, attention.kernel = 0.4, kernel
    x, context = torch.randn(1, 2, 12).double(), torch.randn(1, 5, 10).double()
    many = attention(x.expand(6000, -1, -1), context.expand(6000, -1, -1)).out.detach()
    exact = attention.eval()(x, context).out[0].detach()
    assert many.std(0).min() > 0.01
    error = (many.mean(0) - exact).abs() / (many.std(0) / 6000**0.5)
    # Standard errors; 24 numbers, each beyond four of them once in 16,000.
    assert error.max() < 4.5


@pytest.fixture
def sdpa_calls(monkeypatch):
    """The keyword arguments of every call of torch's SDPA."""
    calls, original = [], torch.nn.functional.scaled_dot_product_attention

    def spy(*tensors, **options):
        calls.append(options)
        return original(*tensors, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    return calls


def test_causal_self_attention_makes_no_mask(sdpa_calls):
    attention = Attention(12, num_heads=2, pattern="causal").double()
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    out, gradients = run_on_itself(attention, "sdpa", x)
    assert sdpa_calls[0]["is_causal"]
    assert sdpa_calls[0]["attn_mask"] is None
    expected, others = run_on_itself(attention, "dense", x)
    close(out, expected)
    for name, gradient in gradients.items():
        close(gradient, others[name], name)


def run_on_itself(attention, kernel, x):
    attention.kernel = kernel
    attention.zero_grad()
    x = x.clone().requires_grad_()
    out = attention(x).out
    out.backward(torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out))
    return out.detach(), {"x": x.grad} | {n: p.grad for n, p in attention.named_parameters()}


@pytest.mark.parametrize(
    ("options", "call"),
    [
        ({}, {"mask": torch.arange(7) < torch.tensor([[7], [3]])}),
        ({}, {"context": torch.randn(2, 11, 12)}),
        ({"position": "alibi"}, {}),
        ({"score": "neg_l2"}, {}),
        ({"options": {"qkv": {"num_registers": 2}}}, {}),
    ],
    ids=["mask", "other lengths", "bias", "key bias", "registers"],
)
def test_causal_attention_with_anything_besides_has_a_mask(sdpa_calls, options, call):
    attention = Attention(12, num_heads=2, pattern="causal", **options)
    out = attention(x := torch.randn(2, 7, 12), **call).out
    assert not sdpa_calls[0]["is_causal"]
    attention.kernel = "dense"
    torch.testing.assert_close(out, attention(x, **call).out, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kernel", ["dense", "sdpa", "chunked", "flex"])
def test_a_pattern_in_the_call_is_the_same_mask(kernel):
    attention = build("causal")
    attention.kernel = kernel
    x, context = torch.randn(2, 5, 12).double(), torch.randn(2, 7, 10).double()
    lengths = torch.tensor([3, 7])
    with torch.no_grad():
        out = attention(x, context, mask=Lengths(lengths)).out
        plain = build("plain")
        mask = (Causal() & Lengths(lengths)).dense(5, 7, batch=2)
        torch.testing.assert_close(out, plain(x, context, mask=mask).out, rtol=0, atol=2e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", [n for n, (_, kernels) in SETTINGS.items() if "flex" in kernels])
def test_flex_trains_on_a_gpu(name):
    attention = build(name).float().cuda()
    x, context = torch.randn(2, 128, 12).cuda(), torch.randn(2, 256, 10).cuda()
    mask = torch.rand(2, 128, 256, device="cuda") > 0.4
    expected, gradients = run(attention, "dense", x, context, mask=mask)
    out, others = run(attention, "flex", x, context, mask=mask)
    torch.testing.assert_close(out, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(others["x"], gradients["x"], rtol=1e-2, atol=1e-2)
