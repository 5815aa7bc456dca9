"""The work of a configuration, counted by torch itself."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.configurations import CONFIGURATIONS, Configuration, block_flops, tiny
from benchmarks.contestants import ours


def small(name):
    """Tiny, with two output queries: torch does not count the products of a single one."""
    sizes = tiny(CONFIGURATIONS[name])
    if sizes.decoder is not None and sizes.decoder.num_queries == 1:
        sizes = replace(sizes, decoder=replace(sizes.decoder, num_queries=2))
    return sizes


def shared_flops(sizes):
    """Learned queries are the same for every example, so they are projected once a batch."""
    if not sizes.inputs:
        return 0
    macs = sizes.num_latents * sizes.latent_dim * sizes.cross_widths[0]
    if sizes.decoder is not None:
        macs += sizes.decoder.num_queries * sizes.decoder.dim * sizes.decoder_widths[0]
    return 2 * macs


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_flops_are_those_that_torch_counts_in_the_dense_form(name):
    sizes = small(name)
    task = ours.build(sizes, kernel="dense", **{"decoder_attention.kernel": "dense"})
    with FlopCounterMode(display=False) as forward:
        output = task.output(task.module(**task.arguments))
    counted = forward.get_total_flops() + (sizes.batch - 1) * shared_flops(sizes)
    assert counted == sizes.flops("forward")
    with FlopCounterMode(display=False) as backward:
        output.sum().backward()
    total = counted + backward.get_total_flops()
    assert total == pytest.approx(sizes.flops("train"), rel=0.15)


def test_flops_of_a_block_are_those_of_its_products():
    n, m, d, c, qk, v, w = 3, 5, 7, 11, 13, 17, 2
    macs = (
        n * d * qk + m * c * qk + m * c * v + n * v * d + n * m * qk + n * m * v + 2 * w * n * d * d
    )
    assert block_flops(n, m, d, c, qk, v, widening=w) == 2 * macs


def test_the_papers_models_have_the_papers_work():
    assert CONFIGURATIONS["imagenet_8x6"].flops("forward") == pytest.approx(407e9, rel=0.01)
    assert CONFIGURATIONS["latents"].flops("train") == pytest.approx(135e9, rel=0.01)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_what_no_rewriting_avoids_is_less_than_the_whole(name):
    sizes = CONFIGURATIONS[name]
    part = sizes.irreducible_flops("train")
    assert part == sizes.flops("train") if name == "latents" else part < sizes.flops("train")


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_configuration_survives_json(name):
    fields = json.loads(json.dumps(CONFIGURATIONS[name].as_json()))
    assert Configuration.from_json(fields) == CONFIGURATIONS[name]
