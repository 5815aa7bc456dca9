"""Text as it stands, in configs: OmegaConf would evaluate what looks like a reference."""

from __future__ import annotations

import re
from typing import Any

MISSING = "???"  # to OmegaConf a value that is yet to be given
_REFERENCE = re.compile(r"(\\*)\$\{")


def literal(value: Any) -> Any:
    """Plain data as a config must hold them for OmegaConf to give back the same.

    `${` becomes `\\${`. Two things have no such form, see `can_be_literal`.
    """
    if isinstance(value, dict):
        return {name: literal(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [literal(item) for item in value]
    if not isinstance(value, str):
        return value
    # Before a reference alone a backslash counts.
    return _REFERENCE.sub(lambda found: 2 * found[1] + "\\${", value)


def can_be_literal(value: Any) -> bool:
    """Whether a config can hold plain data: not text that is `???`, nor a key like `_target_`."""
    if isinstance(value, dict):
        return all(
            not str(name).startswith("_") and can_be_literal(item) for name, item in value.items()
        )
    if isinstance(value, list | tuple):
        return all(map(can_be_literal, value))
    return not isinstance(value, str) or value != MISSING
