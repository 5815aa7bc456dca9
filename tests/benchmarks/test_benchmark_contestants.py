"""All contestants compute the same thing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.configurations import CONFIGURATIONS, tiny
from benchmarks.contestants import (
    LIBRARIES,
    Contestant,
    NotApplicable,
    compiled,
    interpreter,
    ours,
)
from benchmarks.driver import Pool, compare
from benchmarks.floor import recorded
from benchmarks.values import fourier_codes, grouped_channels, joined_tokens
from perceiver.models import blocks
from perceiver.ops import matmul as products
from perceiver.ops import recompute
from perceiver.positions import fourier_features


def answer(task):
    return task.output(task.module(**task.arguments)).detach().flatten()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_transformers_and_this_project_answer_alike(name):
    pytest.importorskip("transformers")
    from benchmarks.contestants import hf

    sizes = tiny(CONFIGURATIONS[name])
    torch.testing.assert_close(
        answer(hf.build(sizes)), answer(ours.build(sizes)), rtol=1e-4, atol=1e-5
    )


def test_options_reach_the_part_that_they_name():
    sizes = tiny(CONFIGURATIONS["imagenet_1x6"])
    model = ours.build(sizes, kernel="dense", **{"latent_attention.kernel": "sdpa"}).module
    assert model.encoder.cross_attends[0].attention.kernel == "dense"
    assert model.encoder.latent_blocks[0][0].attention.kernel == "sdpa"


@pytest.mark.parametrize("trick", ["without=sharing", "recompute=always"])
def test_with_another_trick_the_step_is_another_and_its_answer_the_same(trick, monkeypatch):
    monkeypatch.setattr(
        recompute, "WORTHWHILE", recompute.WORTHWHILE
    )  # put back what is taken away
    sizes = replace(tiny(CONFIGURATIONS["small_image"]), batch=4)

    def step(**options):
        task = ours.build(sizes, **options)
        answers = []

        def run():
            output = task.output(task.module(**task.arguments))
            output.square().mean().backward()
            answers.append(output.detach())

        calls = recorded(run)
        return calls, [*answers, *(p.grad for p in task.module.parameters())]

    (calls, values), (others, same) = step(), step(**dict([trick.split("=")]))
    assert calls != others
    torch.testing.assert_close(same, values, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("trick", "spared"), [("cache", "cos"), ("blocks", "scaled_dot")])
def test_without_cache_and_blocks_a_step_calls_what_they_spare(trick, spared, monkeypatch):
    monkeypatch.setattr(ours.sdpa, "_blocks_pay", ours.sdpa._blocks_pay)
    # Wide heads, and enough scores that blocks pay for them.
    sizes = replace(
        tiny(CONFIGURATIONS["small_image"]), num_latents=512, latent_dim=256, num_heads=2
    )

    def count(**options):
        task = ours.build(sizes, **{"latent_attention.kernel": "sdpa"}, **options)
        task.module(**task.arguments)  # fills what is kept
        calls = recorded(lambda: task.module(**task.arguments).sum().backward())
        return sum(n for call, n in calls.items() if spared in str(call.function))

    assert count() < count(without=trick)


def test_without_batches_linear_layers_alone_are_onednns(monkeypatch):
    monkeypatch.setattr(products, "MKL_IS_SLOW", True)
    monkeypatch.setattr(products, "NEVER_ROUNDS", True)
    sizes = tiny(CONFIGURATIONS["small_image"])
    ours.build(sizes)
    assert products.onednn_multiplies_batches()
    ours.build(sizes, without="batches")
    assert not products.onednn_multiplies_batches()
    assert products.onednn_is_faster(2048, 2048, 2048)


def test_recomputing_never_keeps_what_recomputing_always_does_not(monkeypatch):
    monkeypatch.setattr(recompute, "WORTHWHILE", recompute.WORTHWHILE)
    monkeypatch.setattr(blocks, "is_worthwhile", blocks.is_worthwhile)
    sizes = tiny(CONFIGURATIONS["latents"])

    def norms(how):
        task = ours.build(sizes, recompute=how)
        calls = recorded(lambda: task.module(**task.arguments).sum().backward())
        return sum(n for call, n in calls.items() if "layer_norm" in str(call.function))

    assert norms("always") > norms("never")


@pytest.mark.parametrize("option", [{"without": "haste"}, {"recompute": "twice"}])
def test_an_unknown_trick_is_refused(option):
    with pytest.raises(ValueError, match="choose"):
        ours.build(tiny(CONFIGURATIONS["small_image"]), **option)


def test_given_tokens_are_those_that_this_project_reads():
    sizes = tiny(CONFIGURATIONS["modalities"])
    task = ours.build(sizes)
    tokens, mask = joined_tokens(sizes)
    array = task.module.byte_array(**task.arguments)
    torch.testing.assert_close(array.tokens, tokens)
    assert mask.equal(array.mask)
    assert not mask.all()


def test_grouped_channels_put_all_sines_before_all_cosines():
    source = tiny(CONFIGURATIONS["small_image"]).inputs["image"]
    line = [torch.linspace(-1, 1, n, dtype=torch.float64) for n in source.shape]
    places = torch.stack(torch.meshgrid(*line, indexing="ij"), -1)
    grouped = fourier_features(
        places, num_bands=source.num_bands, max_resolution=source.shape
    ).flatten(0, -2)
    content = torch.zeros(source.num_tokens, source.channels)
    ours_order = torch.cat([content, fourier_codes(source)], 1)[:, grouped_channels(source)]
    torch.testing.assert_close(ours_order[:, source.channels :], grouped.float())


@pytest.mark.parametrize(
    "label",
    [
        "ours",
        "hf+bf16-true",
        "ours+kernel=dense+bf16-mixed+compile",
        "ours+bf16-mixed+regions",
        "krasserm+medium",
    ],
)
def test_a_label_names_a_contestant(label):
    assert Contestant.parse(label).label == label


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("theirs", "unknown library"),
        ("ours+fast", "neither"),
        ("hf+kernel=sdpa", "takes options"),
        ("hf+regions", "has regions"),
    ],
)
def test_a_label_that_names_nothing_is_refused(label, message):
    with pytest.raises(ValueError, match=message):
        Contestant.parse(label)


def test_regions_are_those_that_the_model_names(monkeypatch):
    model = ours.build(tiny(CONFIGURATIONS["imagenet_1x6"])).module
    done = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: done.append(self))
    assert compiled(model, "") is model
    assert done == []
    assert compiled(model, "regions") is model
    assert done == model.regions()
    with pytest.raises(NotApplicable, match="Stack names no regions"):
        compiled(ours.build(tiny(CONFIGURATIONS["latents"])).module, "regions")


@pytest.mark.slow
def test_compiled_models_answer_alike_and_those_without_regions_are_absent():
    who = [Contestant.parse(label) for label in ("ours", "ours+compile", "ours+regions")]
    with Pool(threads=1, peak_side=64) as pool:
        found = {
            name: compare(pool, tiny(CONFIGURATIONS[name]), who, rounds=1, turn_seconds=0)
            for name in ("imagenet_1x6", "latents")
        }
    entries = found["imagenet_1x6"]["contestants"].values()
    assert all(entry["distance"] < 1e-5 for entry in entries)  # another order of sums
    assert "names no regions" in found["latents"]["contestants"]["ours+regions"]["absent"]


@pytest.mark.slow
def test_installed_peers_answer_like_this_project_in_processes_of_their_own():
    peers = [name for name in LIBRARIES if interpreter(name)]
    with Pool(threads=1, peak_side=64) as pool:
        for name in ("small_image", "modalities", "bytes"):
            found = compare(
                pool,
                tiny(CONFIGURATIONS[name]),
                [Contestant(peer) for peer in peers],
                rounds=1,
                turn_seconds=0,
            )
            assert all("seconds" in entry for entry in found["contestants"].values()), found
