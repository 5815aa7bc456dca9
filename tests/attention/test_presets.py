"""Every preset in conf/attention: what holds for all of them, whatever they compute."""

from __future__ import annotations

import inspect

import pytest
import torch
from hydra.utils import instantiate

from perceiver.attention import AXES, Attention
from perceiver.attention.registry import options_of
from tests.attention.presets import (
    CONTEXT_WIDTH,
    GRIDS,
    ORDERED,
    PRESETS,
    SAME_WIDTH,
    WIDTH,
    build,
    inputs,
    load,
)
from tests.configs import attention_config


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_gives_what_a_perceiver_block_adds_to_its_queries(name):
    attention = build(name)
    query, context = inputs(name)
    result = attention(query, context, need_weights=True)
    assert result.out.shape == query.shape
    assert result.weights.shape[0] == 2
    assert result.weights.shape[2:] == (query.shape[1], context.shape[1])
    assert result.out.isfinite().all()
    torch.testing.assert_close(attention(query, context).out, result.out, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PRESETS)
def test_masked_keys_do_not_matter(name):
    attention = build(name)
    query, context = inputs(name)
    keep = torch.ones(context.shape[:2], dtype=torch.bool)
    keep[0, 2], keep[1, 4:] = False, False
    other = torch.where(keep[..., None], context, 100.0)
    first = attention(query, context, mask=keep, need_weights=True)
    second = attention(query, other, mask=keep, need_weights=True)
    assert (first.weights.masked_select(~keep[:, None, None]) == 0).all()
    torch.testing.assert_close(first.out, second.out, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        attention(query, other, mask=keep).out, first.out, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(
    ("dtype", "is_training"),
    [
        (torch.float64, False),
        (torch.float32, True),
        (torch.bfloat16, False),
        (torch.float16, True),
    ],
)
@pytest.mark.parametrize("name", PRESETS)
def test_nothing_to_attend_to_gives_zeros(name, dtype, is_training):
    """Weights 0, output 0 whatever the biases, gradient 0."""
    attention = build(name, dtype).train(is_training)
    for parameter_name, parameter in attention.named_parameters():
        if parameter_name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    query, context = inputs(name, dtype=dtype)
    query.requires_grad_()
    context.requires_grad_()
    keep = torch.ones(2, query.shape[1], context.shape[1], dtype=torch.bool)
    keep[0] = False
    for need_weights in (False, True):
        result = attention(query, context, mask=keep, need_weights=need_weights)
        assert result.out.dtype == dtype
        assert result.out.isfinite().all()
        assert (result.out[0] == 0).all()
        assert (result.out[1] != 0).any()
        result.out.float().mean().backward()
        for tensor in (query, context, *attention.parameters()):
            assert tensor.grad is None or tensor.grad.isfinite().all()
        for tensor in (query, context):
            assert tensor.grad is None or (tensor.grad[0] == 0).all()
    assert (result.weights[0] == 0).all()


@pytest.mark.parametrize("name", PRESETS)
def test_single_precision_is_near_double(name):
    double, single = build(name), build(name, torch.float32)
    single.load_state_dict(double.state_dict())
    query, context = inputs(name)
    expected = double(query, context).out
    out = single(query.float(), context.float()).out
    torch.testing.assert_close(out.double(), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", PRESETS)
def test_a_state_dict_rebuilds_it(name):
    attention = build(name)
    torch.manual_seed(2)
    other = instantiate(load(name), _convert_="all")(
        query_dim=WIDTH, key_dim=attention.key_dim
    ).double()
    other.eval().load_state_dict(attention.state_dict())
    query, context = inputs(name)
    assert (other(query, context).out == attention(query, context).out).all()


@pytest.mark.parametrize(("queries", "keys"), [(5, 1), (1, 1), (1, 7), (13, 3)])
@pytest.mark.parametrize("name", [n for n in PRESETS if n not in GRIDS])
def test_any_lengths_will_do(name, queries, keys):
    attention = build(name)
    query, context = inputs(name, queries, keys)
    dense = attention(query, context, need_weights=True).out
    assert dense.isfinite().all()
    torch.testing.assert_close(attention(query, context).out, dense, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PRESETS)
def test_every_parameter_learns(name):
    attention = build(name).train()
    query, context = inputs(name)
    result = attention(query, context)
    loss = (result.out**2).sum()
    for extra in (result.aux.log_prob, result.aux.entropy):
        loss = loss + (0 if extra is None else extra.sum())
    if not loss.requires_grad:
        assert not list(attention.parameters())
        return
    loss.backward()
    without = {n for n, p in attention.named_parameters() if p.grad is None}
    if name == "hard_argmax":
        assert all(parameter.startswith("score") for parameter in without)
    else:
        assert not without


SETS = [n for n in PRESETS if (load(n).position, load(n).pattern) == ("none", "full")]


@pytest.mark.parametrize("name", [n for n in SETS if n not in ORDERED])
def test_permuting_keys_permutes_weights(name):
    attention = build(name)
    query, context = inputs(name)
    order = torch.randperm(context.shape[1])
    first = attention(query, context, need_weights=True)
    second = attention(query, context[:, order], need_weights=True)
    torch.testing.assert_close(second.weights, first.weights[..., order], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(second.out, first.out, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_lists_every_option(name):
    config = load(name)
    arguments = set(inspect.signature(Attention).parameters) - {"query_dim", "key_dim"}
    assert set(config) - {"_target_", "_partial_"} == arguments
    chosen = [config.score, config.position, config.normaliser, config.heads]
    chosen += [part.strip() for part in config.pattern.replace("|", "&").split("&")]
    sizes = {"query_dim", "key_dim", "value_dim", "model_dim", "out_dim", "num_heads"}
    sizes |= {"qk_dim", "v_dim"}
    for axis, members in AXES.items():
        for member in set(chosen) & set(members):
            own = set(options_of(members[member])) - sizes
            own -= {"bias"} if axis == "heads" else set()
            if own:
                assert set(config.options[member]) == own
    assert set(config.options) <= set(chosen)


@pytest.mark.parametrize("name", PRESETS)
def test_one_word_changes_an_axis(name):
    """`model.cross_attention.normaliser=sparsemax`, whatever options stand for other members."""
    config = load(name)
    if config.normaliser == "sum" or config.normaliser == "none":
        pytest.skip("its kernel is bound to its normaliser")
    config.normaliser = "sparsemax"
    width = WIDTH if name in SAME_WIDTH else CONTEXT_WIDTH
    attention = instantiate(config, _convert_="all")(query_dim=WIDTH, key_dim=width)
    assert attention.normaliser.__class__.__name__ == "Sparsemax"


@pytest.mark.parametrize("name", GRIDS)
def test_attention_over_pictures_asks_for_their_size(name):
    config = attention_config(name)
    with pytest.raises(ValueError, match=r"needs grid=.*use attention=perceiver"):
        instantiate(config, _convert_="all")(query_dim=16, key_dim=16)


@pytest.mark.parametrize("name", sorted(SAME_WIDTH - set(GRIDS) - {"multi_head"}))
def test_unprojected_products_refuse_a_context_of_another_width(name):
    config = attention_config(name)
    with pytest.raises(ValueError, match=r"queries of width 16 with keys of width 11.*heads=qkv"):
        instantiate(config, _convert_="all")(query_dim=16, key_dim=11)


def test_location_scores_refuse_a_context_that_is_too_long():
    for name in ("luong_location", "tutorial"):
        config = load(name)
        config.options.location.max_len = 6
        attention = instantiate(config, _convert_="all")(query_dim=16, key_dim=16)
        with pytest.raises(ValueError, match="max_len=6 for 7 keys"):
            attention(torch.randn(1, 5, 16), torch.randn(1, 7, 16))
