"""The Perceiver block against arithmetic, and against transformers' Perceiver with its weights."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from perceiver.attention import Attention
from perceiver.models import AttentionBlock
from perceiver.models.blocks import MLP, naming


def scrambled(module: nn.Module) -> nn.Module:
    """In float64, with all parameters random: zero biases and unit scales hide errors."""
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module.eval()


def by_arithmetic(block: AttentionBlock, latents: Tensor, context: Tensor | None) -> Tensor:
    """One head; the formulas of the paper's appendix E, one by one."""

    def norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return centred / deviation * layer.weight + layer.bias

    def linear(x: Tensor, layer: nn.Linear) -> Tensor:
        return x @ layer.weight.T + layer.bias

    heads = block.attention.heads
    z = norm(latents, block.norm)
    x = z if context is None else norm(context, block.norm_context)
    q, k, v = linear(z, heads.to_query), linear(x, heads.to_key), linear(x, heads.to_value)
    scores = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).exp()
    read = linear(scores / scores.sum(-1, keepdim=True) @ v, heads.to_out)
    z = latents + read if block.query_residual else read
    hidden = linear(norm(z, block.norm_mlp), block.mlp[0])
    inner = math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)
    gelu = hidden * 0.5 * (1 + torch.tanh(inner))
    return z + linear(gelu, block.mlp[2])


@pytest.mark.parametrize("query_residual", [True, False])
@pytest.mark.parametrize("context_dim", [None, 7])
def test_a_block_is_pre_norm_attention_and_a_pre_norm_mlp_with_residuals(
    context_dim, query_residual
):
    attention = partial(Attention, qk_dim=3, v_dim=11)
    block = AttentionBlock(
        5, context_dim, attention=attention, widening=2, query_residual=query_residual
    )
    scrambled(block)
    latents = torch.randn(2, 3, 5).double()
    context = None if context_dim is None else torch.randn(2, 13, context_dim).double()
    assert_close(block(latents, context), by_arithmetic(block, latents, context))


def test_masked_context_is_not_read():
    block = scrambled(AttentionBlock(5, 7, attention=Attention))
    latents, context = torch.randn(2, 3, 5).double(), torch.randn(2, 11, 7).double()
    mask = torch.arange(11) < torch.tensor([[11], [4]])
    outputs = block(latents, context, mask=mask)
    assert_close(outputs[:1], block(latents[:1], context[:1]))
    assert_close(outputs[1:], block(latents[1:], context[1:, :4]))


@pytest.mark.parametrize("widening", [1, 3])
def test_the_parameters_of_a_block_are_those_of_the_formula(widening):
    query, key, qk, v = 5, 7, 6, 10
    block = AttentionBlock(
        query,
        key,
        attention=partial(Attention, num_heads=2, qk_dim=qk, v_dim=v),
        widening=widening,
    )
    attention = (query + 1) * qk + (key + 1) * qk + (key + 1) * v + (v + 1) * query
    norms = 2 * query + 2 * key + 2 * query
    mlp = 2 * widening * query**2 + (widening + 1) * query
    assert sum(p.numel() for p in block.parameters()) == attention + norms + mlp


def test_dropout_drops_outputs_of_attention_and_mlp_in_training_alone():
    block = AttentionBlock(101, attention=Attention, dropout=0.4)
    with torch.no_grad():
        # Attention gives 1, the MLP 0.25, whatever comes in.
        nn.init.zeros_(block.attention.heads.to_out.weight)
        nn.init.ones_(block.attention.heads.to_out.bias)
        nn.init.zeros_(block.mlp[2].weight)
        nn.init.constant_(block.mlp[2].bias, 0.25)
    latents = torch.zeros(7, 103, 101)
    assert (block.eval()(latents) == 1.25).all()
    values, counts = block.train()(latents).unique(return_counts=True)
    assert_close(values, torch.tensor([0, 0.25, 1, 1.25]) / 0.6)
    shares = counts / latents.numel()
    assert_close(shares, torch.tensor([0.16, 0.24, 0.24, 0.36]), rtol=0, atol=0.01)


@pytest.mark.parametrize(("activation", "form"), [("gelu", "none"), ("gelu_tanh", "tanh")])
def test_an_mlp_widens_and_narrows(activation, form):
    mlp = scrambled(MLP(5, widening=3, activation=activation))
    x = torch.randn(2, 5).double()
    hidden = F.gelu(x @ mlp[0].weight.T + mlp[0].bias, approximate=form)
    assert hidden.shape[1] == 15
    assert_close(mlp(x), hidden @ mlp[2].weight.T + mlp[2].bias)


def test_an_activation_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="activation='swish' must be one of gelu, gelu_tanh"):
        MLP(5, activation="swish")


def test_under_autocast_a_norm_is_rounded_once():
    torch.manual_seed(0)
    read = []

    def attention(query_dim, key_dim):
        module = Attention(query_dim, key_dim, kernel="dense")
        module.register_forward_pre_hook(lambda _, given: read.extend(given[:2]))
        return module

    block = AttentionBlock(7, attention=attention)
    latents = torch.randn(2, 5, 7)
    expected = block(latents)
    with torch.autocast("cpu", torch.bfloat16):
        out = block(latents)
    assert [None if x is None else x.dtype for x in read] == [
        torch.float32,
        None,
        torch.bfloat16,
        None,
    ]
    assert out.dtype == torch.float32
    assert_close(out, expected, rtol=0.02, atol=0.02)


def test_a_refusal_names_the_part_of_the_model():
    said = r"model\.decoder: num_heads=3 does not divide qk_dim=5"
    with pytest.raises(ValueError, match=said), naming("decoder"):
        AttentionBlock(5, attention=partial(Attention, num_heads=3))


def read_transformers_layer(block: AttentionBlock, state: dict[str, Tensor]) -> AttentionBlock:
    """Our block with the weights of a transformers `PerceiverLayer`."""
    names = {
        "attention.self.layernorm1": "norm",
        "attention.self.layernorm2": "norm_context",
        "attention.self.query": "attention.heads.to_query",
        "attention.self.key": "attention.heads.to_key",
        "attention.self.value": "attention.heads.to_value",
        "attention.output.dense": "attention.heads.to_out",
        "layernorm": "norm_mlp",
        "mlp.dense1": "mlp.0",
        "mlp.dense2": "mlp.2",
    }
    ours = {}
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        ours[f"{names[layer]}.{kind}"] = value
    block.load_state_dict(ours, strict=True)
    return block


@pytest.mark.parametrize(
    ("is_cross", "heads", "query_residual"), [(False, 2, True), (True, 1, True), (True, 2, False)]
)
def test_a_block_equals_transformers_perceiver_layer_with_the_same_weights(
    is_cross, heads, query_residual
):
    transformers = pytest.importorskip("transformers")
    from transformers.models.perceiver.modeling_perceiver import PerceiverLayer

    latent, context_dim, qk, v = 10, 7, 6, 22 if is_cross else 10
    theirs = PerceiverLayer(
        transformers.PerceiverConfig(
            hidden_act="gelu_pytorch_tanh", attention_probs_dropout_prob=0.0
        ),
        is_cross_attention=is_cross,
        qk_channels=qk,
        v_channels=v,
        num_heads=heads,
        q_dim=latent,
        kv_dim=context_dim if is_cross else latent,
        widening_factor=3,
        use_query_residual=query_residual,
    )
    scrambled(theirs)
    block = AttentionBlock(
        latent,
        context_dim if is_cross else None,
        attention=partial(Attention, num_heads=heads, qk_dim=qk, v_dim=v),
        widening=3,
        query_residual=query_residual,
    ).double()
    read_transformers_layer(block, theirs.state_dict())

    latents = torch.randn(2, 5, latent).double()
    if not is_cross:
        assert_close(block(latents), theirs(latents)[0])
        return
    context = torch.randn(2, 13, context_dim).double()
    mask = torch.arange(13) < torch.tensor([[13], [11]])
    added = torch.zeros(2, 1, 1, 13).double().masked_fill(~mask[:, None, None], -torch.inf)
    expected = theirs(latents, inputs=context, inputs_mask=added)[0]
    assert_close(block(latents, context, mask=mask), expected)
