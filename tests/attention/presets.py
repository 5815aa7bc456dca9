"""The presets of conf/attention, small: how tests build them and what they are given."""

from __future__ import annotations

import torch
from hydra.utils import instantiate

from tests.configs import attention_config, choices

PRESETS = choices("attention")
# Self-attention over a picture: its size has to be said, and queries are the keys.
GRIDS = {"stand_alone": "local2d", "swin": "swin_table"}
# Keys and queries must be equally wide: nothing is projected.
SAME_WIDTH = {"enc_dec_dot", "enc_only_dot", "luong_dot", "multi_head", "stand_alone"}
WIDTH, CONTEXT_WIDTH = 16, 11
# Draws at random in training; in evaluation its result is that of argmax.
RANDOM = {"hard_gumbel", "hard_reinforce"}
# The query sees where the one before it looked; the key's place, not its content, is scored; …
ORDERED = {"location_aware", "luong_location", "luong_local_m", "luong_local_p", "tutorial"}


def load(name):
    config = attention_config(name)
    if name in GRIDS:
        config.options[GRIDS[name]].grid = [2, 3]
    return config


def build(name, dtype=torch.float64):
    torch.manual_seed(1)
    width = WIDTH if name in SAME_WIDTH else CONTEXT_WIDTH
    attention = instantiate(load(name), _convert_="all")(query_dim=WIDTH, key_dim=width)
    return attention.to(dtype).eval()


def inputs(name, queries=5, keys=7, dtype=torch.float64):
    if name in GRIDS:
        queries = keys = 6
    width = WIDTH if name in SAME_WIDTH else CONTEXT_WIDTH
    return torch.randn(2, queries, WIDTH).to(dtype), torch.randn(2, keys, width).to(dtype)
