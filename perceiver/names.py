"""Texts that were found in data, as terminals, pictures and spreadsheets may see them."""

from __future__ import annotations

_SHORT = 80  # characters
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what spreadsheets take for one


def shown(text: str, limit: int = _SHORT) -> str:
    """The text on one line, without what commands a terminal, and not longer than `limit`.

    Whatever is no visible character (controls, ends of lines, marks that turn the direction) is
    written as its number; of a long text the beginning and the end are left.
    """
    if len(text) > limit:
        end = limit // 3
        text = f"{text[: limit - end - 1]}…{text[len(text) - end :]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def cell(value: object) -> object:
    """A cell of a table for people: text that a spreadsheet would calculate gets an apostrophe.

    Numbers stay, also those that are written as text: "-1".
    """
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
