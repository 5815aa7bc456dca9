"""Results as the commands write them, with round numbers."""

from __future__ import annotations

import pytest

from benchmarks.configurations import CONFIGURATIONS


def measured(seconds, memory, **more):
    times = {"median": seconds, "low": 0.9 * seconds, "high": 1.1 * seconds, "count": 5}
    return {
        "parameters": 7,
        "first_seconds": 1.0,
        "distance": 1e-7,
        "seconds": {"forward": {**times, "median": seconds / 4}, "train": times},
        "memory": {"forward": memory // 2, "train": memory},
        "resident": {"forward": memory, "train": 2 * memory},
        "total_memory": {"forward": memory, "train": 2 * memory},
        **more,
    }


def compared(name, contestants):
    sizes = CONFIGURATIONS[name]
    return {
        "title": sizes.title,
        "sizes": sizes.as_json(),
        "flops": {"forward": 1e9, "train": 3e9},
        "irreducible_flops": {"forward": 0.5e9, "train": 1.5e9},
        "peaks": {"fp32": 1e10, "bf16": 4e10, "fp32 layers": 9e9},
        "contestants": contestants,
    }


@pytest.fixture
def results():
    """kind → results: ours steps in 1 s and 50 MiB, peers in 3 and 2 s, 400 and 500 MiB."""
    mib = 2**20
    machine = {
        "device": "cpu",
        "processor": "a CPU",
        "cores": 2,
        "threads": 2,
        "python": "3.11.7",
        "versions": {"torch": "2.14.1"},
        "peaks": {"fp32": 1e10, "bf16": 4e10},
    }
    found = {
        name: compared(
            name,
            {
                "ours": measured(
                    1.0, 50 * mib, floor={"train": {"products": 0.5, "operators": 0.8}}
                ),
                "ours+bf16-mixed": measured(0.4, 40 * mib),
                "hf": measured(3.0, 400 * mib),
                "lucidrains": measured(2.0, 500 * mib),
                "krasserm": {"absent": "krasserm is left out: install it"},
            },
        )
        for name in CONFIGURATIONS
    }
    points = {
        str(m): compared("cross_261", {"ours": measured(m * 1e-6, m * 100)})
        for m in (1024, 10_000, 99_856, 1_000_000)
    }
    tokens = {"title": "tokens M", "fitted_from": 10_000, "points": points}
    slow = {"median": 200.0, "low": 190.0, "high": 210.0, "count": 3}
    kinds = {
        "peers": {"configurations": found},
        "scaling": {"axes": {"tokens": tokens}},
        "ablations": {"configurations": {"latents": found["latents"]}},
        "training": {
            "jobs": {"default": {"auto": {**slow, "median": 300.0}, "dense": slow}},
            "accuracy": {"default": {"auto": [0.5, 0.25], "bf16": [0.25]}, "fsdd": {}},
        },
    }
    loaders = {"plain": 50.0, "decoding": 100.0, "kept": 200.0}
    loaders |= {"plain, first": 40.0, "kept, first": 30.0}
    kinds["data"] = {
        "cases": {
            "clips": {
                "stages": {"bare decoder": 100.0, "decode": 250.0, "all": 70.0},
                "workers": {"0": loaders},
            }
        }
    }
    kinds["cost"] = {
        "cases": {
            "a stem": {
                "forward": {"seconds": {"sdpa": 0.5, "folded": 0.25}, "chosen": "folded"},
                "train": {"seconds": {"sdpa": 2.0}, "chosen": "sdpa"},
            }
        }
    }
    return {
        kind: {"kind": kind, "command": f"python -m benchmarks.{kind}", "machine": machine, **rest}
        for kind, rest in kinds.items()
    }
