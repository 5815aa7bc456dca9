"""JSON of strangers: nested no deeper than a parser bears."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

DEEPEST = 64  # lists and objects in one another
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def load_json(raw: bytes | str) -> Any:
    """What a JSON text holds.

    Raises:
        ValueError: it is none, or is nested deeper than `DEEPEST`.
    """
    content = raw.encode("utf-8", errors="surrogatepass") if isinstance(raw, str) else raw
    if is_deep(content):
        raise ValueError(f"lists and objects are nested more than {DEEPEST} deep")
    return json.loads(raw)


def is_deep(raw: bytes) -> bool:
    """Whether lists and objects are nested deeper than `DEEPEST`; parsers in C would crash."""
    if raw.count(b"[") + raw.count(b"{") <= DEEPEST:
        return False
    content = np.frombuffer(_STRING.sub(b"", raw), np.uint8)
    opens = (content == ord("[")) | (content == ord("{"))
    closes = (content == ord("]")) | (content == ord("}"))
    depth = np.cumsum(opens.astype(np.int32) - closes.astype(np.int32))
    return bool(depth.max(initial=0) > DEEPEST)
