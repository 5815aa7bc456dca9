"""Positions that queries are compared with, against loops over the papers' equations."""

from __future__ import annotations

import math

import pytest
import torch

from perceiver.attention import Attention, AttentionStem, StandAloneSelfAttention


def split(attention, x, context, heads):
    """Queries, keys and values, in loops over what the linear layers give."""
    return [
        layer(tensor).unflatten(-1, (heads, -1)).transpose(1, 2)
        for layer, tensor in (
            (attention.heads.to_query, x),
            (attention.heads.to_key, context),
            (attention.heads.to_value, context),
        )
    ]


def test_shaw_adds_tables_to_keys_and_values():
    """Shaw et al. 2018, eq. 3 and 4, with more keys than queries."""
    attention = Attention(
        6,
        num_heads=2,
        v_dim=8,
        position="relative_table",
        options={"relative_table": {"max_distance": 2}},
    ).double()
    x, context = torch.randn(2, 4, 6).double(), torch.randn(2, 7, 6).double()
    keep = torch.rand(2, 4, 7) > 0.3
    keep[0, 1] = False
    q, k, v = split(attention, x, context, 2)
    read = torch.zeros(2, 2, 4, 4).double()
    for b in range(2):
        for h in range(2):
            for i in range(4):
                index = [min(max(j - (i + 3), -2), 2) + 2 for j in range(7)]
                kept = [j for j in range(7) if keep[b, i, j]]
                if not kept:
                    continue
                scores = torch.stack(
                    [
                        q[b, h, i] @ (k[b, h, j] + attention.position.keys[index[j]]) / math.sqrt(3)
                        for j in kept
                    ]
                )
                for w, j in zip(scores.softmax(0), kept, strict=True):
                    read[b, h, i] += w * (v[b, h, j] + attention.position.values[index[j]])
    expected = attention.heads.to_out(read.transpose(1, 2).flatten(-2))
    out = attention(x, context, mask=keep)
    torch.testing.assert_close(out.out, expected, rtol=0, atol=1e-9)


def test_transformer_xl_compares_with_relative_sinusoids():
    """Dai et al. 2019, 3.3, in loops: ((q + u)·k + (q + v)·r_{p_i − j}) / √d."""
    attention = Attention(8, num_heads=2, position="transformer_xl").double()
    torch.nn.init.normal_(attention.position.u)
    torch.nn.init.normal_(attention.position.v)
    x, context = torch.randn(2, 4, 8).double(), torch.randn(2, 7, 8).double()
    q, k, v = split(attention, x, context, 2)
    scores = torch.zeros(2, 2, 4, 7).double()
    for i in range(4):
        for j in range(7):
            distance = i + 3 - j
            angles = [distance / 10000 ** (2 * m / 8) for m in range(4)]
            code = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            code = torch.tensor(code, dtype=x.dtype)
            r = attention.position.to_relative(code).unflatten(0, (2, 4))
            for h in range(2):
                content = (q[:, h, i] + attention.position.u[h, 0]) @ k[:, h, j].mT
                content = content.diagonal()
                place = (q[:, h, i] + attention.position.v[h, 0]) @ r[h]
                scores[:, h, i, j] = (content + place) / 2
    read = scores.softmax(-1) @ v
    expected = attention.heads.to_out(read.transpose(1, 2).flatten(-2))
    torch.testing.assert_close(attention(x, context).out, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("border", ["mask", "zero_pad"])
def test_stand_alone_self_attention_reads_its_neighbourhood(border):
    """Ramachandran et al. 2019, eq. 3, in loops over pixels and windows."""
    height, width, heads, size, d = 3, 5, 2, 3, 4
    attention = StandAloneSelfAttention(
        heads * d, grid=(height, width), size=size, num_heads=heads, border=border
    ).double()
    x = torch.randn(2, height * width, heads * d).double()
    q, k, v = split(attention, x, x, heads)
    rows, columns = attention.position.rows, attention.position.columns
    expected = torch.zeros(2, heads, height * width, d).double()
    for b in range(2):
        for h in range(heads):
            for i in range(height):
                for j in range(width):
                    query, scores, values = q[b, h, i * width + j], [], []
                    for a in range(i - 1, i + 2):
                        for c in range(j - 1, j + 2):
                            inside = 0 <= a < height and 0 <= c < width
                            if not inside and border == "mask":
                                continue
                            key = k[b, h, a * width + c] if inside else torch.zeros(d).double()
                            value = v[b, h, a * width + c] if inside else torch.zeros(d).double()
                            r = torch.cat([rows[h, a - i + 1], columns[h, c - j + 1]])
                            scores.append(query @ key + query @ r)
                            values.append(value)
                    weights = torch.stack(scores).softmax(0)
                    expected[b, h, i * width + j] = weights @ torch.stack(values)
    out = attention(x).out
    torch.testing.assert_close(out, expected.transpose(1, 2).flatten(-2), rtol=0, atol=1e-9)


def test_the_stem_mixes_matrices_by_place_in_the_window():
    stem = AttentionStem(in_dim=3, out_dim=4, num_heads=2, size=3, num_mixtures=2).double()
    image = torch.randn(2, 4, 5, 3).double()
    mixing = stem.mixing()
    torch.testing.assert_close(mixing.sum(-1), torch.ones(3, 3).double())
    a, b = 0, 2
    logits = [(stem.rows[a] + stem.columns[b]) @ stem.mixture[m] for m in range(2)]
    torch.testing.assert_close(mixing[a, b], torch.stack(logits).softmax(0))
    out = stem(image)
    for y in range(4):
        for x in range(5):
            for h in range(2):
                channels = slice(2 * h, 2 * h + 2)
                query, scores, values = stem.to_query(image[1, y, x])[channels], [], []
                for a in range(3):
                    for b in range(3):
                        row, column = y + a - 1, x + b - 1
                        if not (0 <= row < 4 and 0 <= column < 5):
                            continue
                        pixel = image[1, row, column]
                        scores.append(query @ stem.to_key(pixel)[channels])
                        matrix = sum(mixing[a, b, m] * stem.to_values[m].weight for m in range(2))
                        values.append((matrix @ pixel)[channels])
                expected = torch.stack(scores).softmax(0) @ torch.stack(values)
                torch.testing.assert_close(out[1, y, x, channels], expected, rtol=0, atol=1e-9)


def test_stand_alone_attention_refuses_another_picture():
    attention = StandAloneSelfAttention(8, grid=(3, 5), num_heads=2)
    with pytest.raises(ValueError, match="3 × 5 = 15 elements for 14 queries"):
        attention(torch.randn(1, 14, 8))


def test_a_table_that_does_not_fit_the_window_beside_it_is_refused():
    def build(pattern="local2d", **table):
        options = {"local2d": {"grid": [3, 5], "size": 5}, "global": {"indices": [0]}}
        options["relative_table2d"] = {"grid": [3, 5], "size": 5, **table}
        return Attention(8, position="relative_table2d", pattern=pattern, options=options)

    build(size=7)
    for pattern in ("local2d", "causal & (global | local2d)"):
        with pytest.raises(ValueError, match=r"size=3, less than the size=5 of pattern=local2d"):
            build(pattern, size=3)
    with pytest.raises(ValueError, match=r"the grid \[5, 3\] and pattern=local2d \[3, 5\]"):
        build(grid=[5, 3])
    for size in (4, 0, -1):
        with pytest.raises(ValueError, match=rf"relative_table2d has size={size}: it must be odd"):
            build(size=size)
        with pytest.raises(ValueError, match=rf"local2d has size={size}: it must be odd"):
            StandAloneSelfAttention(8, grid=(3, 5), size=size)
