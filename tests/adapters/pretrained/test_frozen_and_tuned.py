"""Frozen encoders are left as they are and asked once; others learn at rates of their own."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from perceiver.adapters import TimmAdapter, TransformersTextAdapter
from perceiver.adapters.pretrained.cache import TokenCache
from perceiver.adapters.pretrained.tokens import layer_rates
from perceiver.tasks.optimisers import parameter_groups, scale_rates
from tests.adapters.pretrained.encoders import save_bert, save_vit


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return str(save_vit(tmp_path_factory.mktemp("vit")))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return str(save_bert(tmp_path_factory.mktemp("bert"), hidden_dropout_prob=0.5))


def texts(folder, **options):
    return TransformersTextAdapter(vocab_size=10, max_length=13, weights=folder, **options)


def seen(adapter):
    """What the adapter's encoder is asked from now on: numbers of examples."""
    asked = []
    adapter.encoder.register_forward_pre_hook(
        lambda _, arguments, options: asked.append(len(options["input_ids"])), with_kwargs=True
    )
    return asked


def test_a_frozen_encoder_has_no_dropout_no_gradients_and_no_place_in_the_optimiser(bert):
    adapter = texts(bert, embed_dim=7, cache_gib=0.0).train()
    ids = torch.randint(2, 10, (3, 5))
    content = adapter(ids).content
    assert_close(content, adapter.eval()(ids).content)
    content.square().sum().backward()
    assert {n.split(".")[0] for n, p in adapter.named_parameters() if p.grad is not None} == {
        "norm",
        "embed",
    }
    trained = {id(p) for group in parameter_groups(adapter) for p in group["params"]}
    assert trained == {id(p) for p in [*adapter.norm.parameters(), *adapter.embed.parameters()]}


def test_a_tuned_encoder_has_dropout_and_gradients_everywhere(bert):
    adapter = texts(bert, frozen=False).train()
    ids = torch.randint(2, 10, (3, 5))
    content = adapter(ids).content
    assert not torch.equal(content, adapter(ids).content)
    (content * torch.randn_like(content)).sum().backward()
    assert all(p.grad is not None for p in adapter.parameters())


def test_each_layer_learns_at_its_share_of_the_rate_through_a_schedule(vit):
    adapter = TimmAdapter(channels=3, weights=vit, frozen=False, lr_scale=0.5, lr_decay=0.1)
    model = nn.ModuleDict({"image": adapter, "head": nn.Linear(3, 2)})
    optimizer = scale_rates(torch.optim.AdamW(parameter_groups(model), lr=1.0))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.25)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    expected = {
        adapter.encoder.patch_embed.proj.weight: 0.5 * 0.1**2,
        adapter.encoder.blocks[0].attn.qkv.weight: 0.5 * 0.1,
        adapter.encoder.blocks[1].mlp.fc1.bias: 0.5,
        adapter.encoder.norm.weight: 0.5,
        adapter.norm.weight: 1.0,
        model["head"].weight: 1.0,
    }
    for parameter, share in expected.items():
        assert rates[id(parameter)] == pytest.approx(0.25 * share)
    assert len(rates) == len(list(model.parameters()))
    assert schedule.get_last_lr()[0] == 0.25


def test_an_encoder_without_layers_learns_at_one_rate():
    rates = layer_rates(nn.Linear(3, 2), scale=0.3, decay=0.1)
    assert rates == {"weight": 0.3, "bias": 0.3}


def test_a_frozen_encoder_is_asked_once_for_each_input(bert):
    adapter = texts(bert)
    asked = seen(adapter)
    ids, mask = torch.randint(2, 10, (3, 5)), torch.ones(3, 5, dtype=torch.bool)
    with torch.inference_mode():  # as a validation before the training
        first = adapter(ids, mask).content.clone()
    mixed = torch.cat([ids[1:2], torch.full((1, 5), 4), ids[:1]])
    again = adapter(mixed, mask).content
    assert asked == [3, 1]
    assert_close(again[[2, 0]], first[[0, 1]], rtol=1e-5, atol=1e-6)
    again.square().sum().backward()  # what inference mode computed can be trained on
    shorter = mask.clone()
    shorter[:, 4:] = False
    adapter(ids, shorter)
    assert asked == [3, 1, 3]  # another input, whatever its padding holds


def test_other_weights_are_not_answered_for_by_the_old_ones(bert):
    adapter = texts(bert)
    ids = torch.randint(2, 10, (2, 5))
    before = adapter(ids).content
    adapter.load_state_dict({n: 2 * v for n, v in adapter.state_dict().items()})
    fresh = texts(bert, cache_gib=0.0)
    fresh.load_state_dict(adapter.state_dict())
    assert_close(adapter(ids).content, fresh(ids).content)
    assert not torch.allclose(adapter(ids).content, before)


def test_a_cache_keeps_to_its_memory_and_rounds_where_asked():
    cache, inputs = TokenCache(max_bytes=2 * 5 * 7 * 2, half=True), torch.randn(3, 5, 7).unbind()
    assert all(a.dtype == torch.float32 for a in cache.through(lambda x: list(x), inputs))
    assert (len(cache), cache.misses, cache.hits) == (2, 3, 0)
    asked = []
    found = cache.through(lambda x: asked.extend(x) or list(x), inputs)
    assert (len(asked), cache.hits) == (1, 2)
    for kept, given in zip(found, inputs, strict=True):
        assert_close(kept, given.half().float(), rtol=0, atol=0)


def test_numbers_of_another_type_are_another_input():
    cache, values = TokenCache(max_bytes=1000), torch.tensor([1.0, 2.0])
    cache.through(lambda x: list(x), [values])
    (found,) = cache.through(lambda x: list(x), [values.view(torch.int32)])
    assert found.dtype == torch.int32


@pytest.mark.parametrize("frozen", [True, False])
def test_an_encoder_never_sees_examples_that_lack_the_modality(bert, frozen):
    adapter = texts(bert, frozen=frozen).eval()
    asked = seen(adapter)
    ids = torch.randint(2, 10, (3, 5))
    present = torch.tensor([True, False, True])
    segment = adapter(ids, None, present=present)
    assert asked == [2]
    assert not segment.content[1].any() or segment.mask is None
    assert_close(segment.content[2], adapter(ids[2:]).content[0], rtol=1e-4, atol=1e-5)
    nothing = adapter(torch.zeros(3, 0, dtype=torch.long), None, present=present & False)
    assert nothing.content.isfinite().all()
    nothing.content.sum().backward()
    assert all(p.grad is not None for p in adapter.parameters() if p.requires_grad)
