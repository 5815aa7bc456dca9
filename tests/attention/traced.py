"""Run as `python traced.py export|compile`: variants of attention give the same when traced."""

from __future__ import annotations

import sys

import torch

from perceiver.attention import Attention, BahdanauAttention, LuongAttention, MultiHeadAttention
from perceiver.attention.patterns import Window

VARIANTS = {
    "multi-head": lambda: MultiHeadAttention(8, 6, num_heads=2, qk_dim=8),
    "bahdanau": lambda: BahdanauAttention(8, 6, 5),
    "luong local": lambda: LuongAttention(8, 6, local="predictive", reach=2),
    "entmax": lambda: Attention(8, 6, normaliser="entmax"),
    "sink": lambda: Attention(8, 6, options={"softmax": {"sink": "learned"}}),
    "rope, causal": lambda: Attention(8, 6, qk_dim=8, position="rope", pattern="causal"),
    "window": lambda: Attention(8, 6, pattern=Window(2, 3)),
    "differential": lambda: Attention(8, 6, qk_dim=8, heads="differential", num_heads=2),
    "t5": lambda: Attention(8, 6, position="t5_buckets", num_heads=2),
    "transformer_xl": lambda: Attention(8, 6, position="transformer_xl", num_heads=2),
    "shaw": lambda: Attention(8, 6, position="relative_table"),
    "registers": lambda: Attention(8, 6, position="alibi", options={"qkv": {"num_registers": 2}}),
    "grouped": lambda: MultiHeadAttention(8, 6, num_heads=4, qk_dim=8, num_kv_heads=2),
    "linear": lambda: Attention(8, 6, score="feature_dot", normaliser="sum"),
}


class Out(torch.nn.Module):
    """Attention with tensors in and out."""

    def __init__(self, attention: torch.nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, query, context, mask):
        return self.attention(query, context, mask=mask).out


def check(way: str, name: str) -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    module = Out(VARIANTS[name]()).eval()
    query, context = torch.randn(2, 5, 8), torch.randn(2, 7, 6)
    mask = torch.arange(7) < torch.tensor([[7], [3]])
    if way == "compile":
        # Generating code takes seconds a variant; tracing forward and backward finds graph breaks.
        backend = "inductor" if name in ("multi-head", "linear") else "aot_eager"
        traced = torch.compile(module, fullgraph=True, backend=backend)
    else:
        keys = torch.export.Dim("keys", min=2, max=64)
        dynamic = {"query": None, "context": {1: keys}, "mask": {1: keys}}
        exported = torch.export.export(module, (query, context, mask), dynamic_shapes=dynamic)
        traced = exported.module()
        context, mask = torch.randn(2, 11, 6), torch.rand(2, 11) > 0.3
    expected = module(query, context, mask)
    torch.testing.assert_close(traced(query, context, mask), expected)
    if way == "compile":
        traced(query, context, mask).sum().backward()


if __name__ == "__main__":
    failed = []
    for name in VARIANTS:
        try:
            check(sys.argv[1], name)
        except Exception as error:
            failed.append(name)
            print(f"{name}: {type(error).__name__}: {str(error)[:600]}")
    sys.exit(bool(failed))
