"""The whole equation, number by number in plain Python, on random choices of all five axes."""

from __future__ import annotations

import cmath
import math
import random

import numpy as np
import pytest
import torch

from perceiver.attention import Attention

B, H, L, S, QUERY, KEY, D, E = 2, 4, 5, 7, 6, 9, 4, 3
CHOICES = {
    "score": ["dot", "unscaled", "general", "additive", "cosine", "neg_l2"],
    "position": ["none", "rope", "rope half", "alibi", "t5"],
    "pattern": ["full", "causal", "window", "prefix", "causal & block", "window | global"],
    "normaliser": ["softmax", "off by one", "sparsemax", "entmax", "sigmoid", "relu", "topk"],
    "softcap": [None, 0.8],
    "groups": [4, 2, 1],
    "gate": [False, True],
    "talking": [False, True],
    "registers": [0, 2],
    "qk_norm": ["none", "rms", "l2"],
    "lengths": [(L, S), (S, L), (L, L)],
}


def build(chosen):
    scores = {
        "unscaled": ("dot", {"dot": {"scale": 1.0}}),
        "cosine": ("cosine", {"cosine": {"scale": 3.0}}),
        "additive": ("additive", {"additive": {"hidden_dim": 5, "bias": True}}),
    }
    score, options = scores.get(chosen["score"], (chosen["score"], {}))
    options = options | {
        "qkv": {
            "num_kv_heads": chosen["groups"],
            "is_gated": chosen["gate"],
            "is_talking": chosen["talking"],
            "num_registers": chosen["registers"],
            "qk_norm": chosen["qk_norm"],
        },
        "rope": {"layout": "half" if "half" in chosen["position"] else "interleaved"},
        "t5_buckets": {"num_buckets": 8, "max_distance": 5, "bidirectional": True},
        "window": {"left": 2, "right": 1},
        "prefix": {"length": 2},
        "block": {"size": 3},
        "global": {"indices": [0, 4]},
        "softmax": {"sink": 0.0 if chosen["normaliser"] == "off by one" else None},
        "topk": {"k": 2},
    }
    position = chosen["position"].removesuffix(" half")
    attention = Attention(
        QUERY,
        KEY,
        num_heads=H,
        qk_dim=H * D,
        v_dim=H * E,
        score=score,
        position="t5_buckets" if position == "t5" else position,
        pattern=chosen["pattern"],
        normaliser="softmax" if chosen["normaliser"] == "off by one" else chosen["normaliser"],
        softcap=chosen["softcap"],
        options=options,
    ).double()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    return attention


def turned(x, p, layout):
    """Pairs of channels as complex numbers, multiplied by e^(i p θ)."""
    out = np.array(x)
    for m in range(D // 2):
        a, b = (2 * m, 2 * m + 1) if layout == "rope" else (m, m + D // 2)
        z = complex(x[a], x[b]) * cmath.exp(1j * p * 10000 ** (-2 * m / D))
        out[a], out[b] = z.real, z.imag
    return out


def bucket(r):
    """Eight buckets, four a sign: two exact, then logarithmic up to a distance of 5."""
    base, distance = (4 if r > 0 else 0), abs(r)
    if distance < 2:
        return base + distance
    return base + min(3, 2 + int(math.log(distance / 2) / math.log(5 / 2) * 2))


def score(chosen, weights, q, k):
    # The learned scale of the l2 norm is in place of 1/√d.
    scale = 1.0 if chosen["qk_norm"] == "l2" else 1 / math.sqrt(D)
    if chosen["score"] in ("dot", "unscaled"):
        return q @ k * (scale if chosen["score"] == "dot" else 1.0)
    if chosen["score"] == "general":
        return q @ weights["score.weight"] @ k
    if chosen["score"] == "additive":
        hidden = weights["score.to_query.weight"] @ q + weights["score.to_key.weight"] @ k
        hidden = hidden + weights["score.to_key.bias"]
        return weights["score.to_score.weight"][0] @ np.tanh(hidden)
    if chosen["score"] == "cosine":
        return 3.0 * (q @ k) / np.linalg.norm(q) / np.linalg.norm(k)
    return -scale * ((q - k) ** 2).sum()


def kept(pattern, p, j):
    window, causal = p - 2 <= j <= p + 1, j <= p
    return {
        "full": True,
        "causal": causal,
        "window": window,
        "prefix": j < 2 or causal,
        "causal & block": causal and p // 3 == j // 3,
        "window | global": window or p in (0, 4) or j in (0, 4),
    }[pattern]


def normalised(name, z, length):
    """The weights of the kept scores of a row that is `length` long."""
    z = np.array(z)
    if name in ("softmax", "off by one"):
        return np.exp(z) / (np.exp(z).sum() + (name == "off by one"))
    if name == "sigmoid":
        return 1 / (1 + np.exp(-(z - math.log(length))))
    if name == "relu":
        return np.maximum(z, 0) / length
    if name == "topk":
        large = np.where(z >= sorted(z)[-2:][0], np.exp(z), 0.0)
        return large / large.sum()
    # sparsemax and 1.5-entmax: the threshold by bisection.
    power, scale = (1, 1.0) if name == "sparsemax" else (2, 0.5)
    low, high = scale * z.max() - 1, scale * z.max()
    for _ in range(200):
        middle = (low + high) / 2
        if (np.maximum(scale * z - middle, 0) ** power).sum() > 1:
            low = middle
        else:
            high = middle
    return np.maximum(scale * z - low, 0) ** power


def unit(chosen, weights, which, x):
    if chosen["qk_norm"] == "rms":
        scale = weights[f"heads.norm_{which}.weight"]
        return x / math.sqrt((x**2).mean() + 1e-6) * scale
    return x / np.linalg.norm(x) if chosen["qk_norm"] == "l2" else x


def reference(chosen, weights, x, context, mask):
    """(out (b, q, e), weights (b, h, q, k))."""
    queries, keys = x.shape[1], context.shape[1]
    real, extra = keys, chosen["registers"]
    out, seen = np.zeros((B, queries, QUERY)), np.zeros((B, H, queries, keys))
    for b in range(B):
        tokens = context[b]
        if extra:
            tokens = np.concatenate([tokens, weights["heads.registers"]])
        q, k, v = (
            given @ weights[f"heads.to_{name}.weight"].T + weights[f"heads.to_{name}.bias"]
            for given, name in ((x[b], "query"), (tokens, "key"), (tokens, "value"))
        )
        scores = np.zeros((H, queries, keys + extra))
        for h in range(H):
            g = h // (H // chosen["groups"])
            for i in range(queries):
                p = i + real - queries
                query = unit(chosen, weights, "query", q[i, h * D : (h + 1) * D])
                if chosen["qk_norm"] == "l2":
                    query = query * weights["heads.scale"][0]
                for j in range(keys + extra):
                    key = unit(chosen, weights, "key", k[j, g * D : (g + 1) * D])
                    turned_query = query
                    if "rope" in chosen["position"]:
                        turned_query = turned(query, p, chosen["position"])
                        key = turned(key, j, chosen["position"]) if j < real else key
                    scores[h, i, j] = score(chosen, weights, turned_query, key)
        if chosen["talking"]:
            scores = np.tensordot(weights["heads.score_mix"], scores, 1)
        if chosen["softcap"]:
            scores = chosen["softcap"] * np.tanh(scores / chosen["softcap"])
        alphas, seeing = np.zeros_like(scores), set()
        for h in range(H):
            for i in range(queries):
                p = i + real - queries
                for j in range(real):
                    if chosen["position"] == "alibi":
                        scores[h, i, j] -= 2 ** (-8 * (h + 1) / H) * abs(p - j)
                    if chosen["position"] == "t5":
                        scores[h, i, j] += weights["position.table"][bucket(j - p), h]
                keep = [j for j in range(real) if mask[b, i, j] and kept(chosen["pattern"], p, j)]
                if keep:
                    seeing.add(i)
                    keep += range(real, real + extra)
                    row = normalised(chosen["normaliser"], scores[h, i, keep], real + extra)
                    alphas[h, i, keep] = row
        if chosen["talking"]:
            alphas = np.tensordot(weights["heads.weight_mix"], alphas, 1)
        for i in seeing:  # what sees nothing gives zeros
            read = []
            for h in range(H):
                g = h // (H // chosen["groups"])
                read.append(alphas[h, i] @ v[:, g * E : (g + 1) * E])
            merged = np.concatenate(read)
            if chosen["gate"]:
                merged = merged / (1 + np.exp(-(weights["heads.to_gate.weight"] @ x[b, i])))
            out[b, i] = weights["heads.to_out.weight"] @ merged + weights["heads.to_out.bias"]
        seen[b] = alphas[..., :real]
    return out, seen


@pytest.mark.parametrize("seed", range(60))
def test_any_choice_of_the_axes_is_the_equation(seed):
    rng = random.Random(seed)
    chosen = {axis: rng.choice(members) for axis, members in CHOICES.items()}
    torch.manual_seed(seed)
    attention = build(chosen)
    queries, keys = chosen["lengths"]
    x = torch.randn(B, queries, QUERY, dtype=torch.float64)
    context = torch.randn(B, keys, KEY, dtype=torch.float64)
    mask = torch.rand(B, queries, keys) > 0.3
    mask[1, 2] = False
    weights = {name: p.detach().numpy() for name, p in attention.named_parameters()}
    out, seen = reference(chosen, weights, x.numpy(), context.numpy(), mask.numpy())
    result = attention(x, context, mask=mask, need_weights=True)
    torch.testing.assert_close(result.weights, torch.tensor(seen), rtol=0, atol=1e-9)
    torch.testing.assert_close(result.out, torch.tensor(out), rtol=0, atol=1e-9)
    torch.testing.assert_close(attention(x, context, mask=mask).out, result.out, rtol=0, atol=1e-9)


def test_the_choices_are_all_met():
    met = {axis: set() for axis in CHOICES}
    for seed in range(60):
        rng = random.Random(seed)
        for axis, members in CHOICES.items():
            met[axis].add(rng.choice(members))
    assert all(met[axis] == set(members) for axis, members in CHOICES.items())
