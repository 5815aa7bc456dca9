"""Numbers and dates as people write them: 1,234.50, $5, 12 %, 29.02.2024, Feb 29, 2024."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

MAX_STRAYS = 0.1  # part of a column's cells that may be no numbers
_FIRST = 64  # cells that are looked at before all are
_PLAIN = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?([iI]nf(inity)?|nan|NaN)$"
_GROUPED = r"^[+-]?\d{1,3}(,\d{3})+(\.\d+)?$"
_CURRENCY = r"(?:[$€£¥]\s?)?"
_DIGITS = r"([\d.,'’\s\x{00a0}\x{202f}]*\d[\d.,]*(?:[eE][+-]?\d+)?)"
_MARKS = rf"^{_CURRENCY}([+-]?){_CURRENCY}{_DIGITS}\s?[%‰$€£¥]?$"
# In the order in which they are tried: 01/02/2024 is in January where all cells allow it.
_FORMATS = ("%Y-%m-%d", "%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y")
_FORMATS += ("%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%Y")
_TIMES = ("", "T%H:%M:%S", " %H:%M:%S", "T%H:%M", " %H:%M", " %I:%M %p")


def written_numbers(column: pa.ChunkedArray, *, max_strays: float = 0.0) -> pa.ChunkedArray | None:
    """Strings → float64; None where more than a part of the cells are no numbers.

    Args:
        column: of strings.
        max_strays: the part, of the cells that are not null; null in what comes back.
    """
    known = pc.drop_null(column)
    for cells in (known[:_FIRST], known):  # the first few: most columns of names end here
        limit = max_strays * len(cells)
        # One cell may be odd among ten; a longer look says more.
        if cells is not known and max_strays:
            limit = max(limit, 1)
        if _read(cells).null_count > limit:
            return None
    return _read(column)


def _read(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Strings → float64, null where a cell is none: signs and separators of thousands removed."""
    cells = pc.utf8_trim_whitespace(column.cast(pa.string()))
    bare = pc.replace_substring_regex(cells, _MARKS, r"\1\2")
    spaces = r"(\d)['’\s\x{00a0}\x{202f}](\d{3})\b"
    for _ in range(4 if pc.any(pc.match_substring_regex(bare, spaces)).as_py() else 0):
        bare = pc.replace_substring_regex(bare, spaces, r"\1\2")
    has_comma = pc.fill_null(pc.match_substring(bare, ","), False)
    if pc.any(has_comma).as_py():
        grouped = pc.fill_null(pc.match_substring_regex(bare, _GROUPED), False)
        has_point = pc.any(pc.match_substring_regex(bare, r"^[+-]?\d+\.\d+$")).as_py()
        if pc.all(pc.or_(pc.invert(has_comma), grouped)).as_py():
            bare = pc.replace_substring(bare, ",", "")
        elif not has_point:  # 1.234,5: the comma is the point
            decimal = pc.replace_substring(pc.replace_substring(bare, ".", ""), ",", ".")
            is_decimal = pc.match_substring_regex(bare, r"^[+-]?(\d{1,3}(\.\d{3})+|\d+),\d+$")
            bare = pc.if_else(pc.fill_null(is_decimal, False), decimal, bare)
    return pc.if_else(pc.match_substring_regex(bare, _PLAIN), bare, None).cast(pa.float64())


def first_stray(column: pa.ChunkedArray, found: pa.ChunkedArray) -> tuple[int, int] | None:
    """How many cells hold something that was not read, and the row of the first; None = none."""
    lost = pc.and_(pc.is_valid(column), pc.is_null(found)).to_numpy()
    return (int(lost.sum()), int(lost.argmax())) if lost.any() else None


def dates(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """A column of dates or moments as float64 seconds since 1970, null where missing; else None."""
    kind = column.type
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        if pa.types.is_timestamp(kind) and kind.tz:
            column = column.cast(pa.timestamp(kind.unit, "UTC")).cast(pa.timestamp(kind.unit))
        return _seconds(column)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return None
    known = pc.drop_null(column)
    cells = pc.utf8_trim_whitespace(column.cast(pa.string()))
    first = pc.utf8_trim_whitespace(known[:_FIRST].cast(pa.string()))
    if not len(first) or pc.max(pc.utf8_length(first)).as_py() > 40:
        return None
    for form in _ways():
        if _parse(first, form) is not None and (found := _parse(cells, form)) is not None:
            return _seconds(found)
    return None


def _ways() -> list[str]:
    return [day + time for day in _FORMATS for time in _TIMES]


def _parse(cells: pa.ChunkedArray, form: str) -> pa.ChunkedArray | None:
    """The moments of all cells that are not null; None where one has another form."""
    # Fractions of a second and the mark of Greenwich change nothing that matters here.
    bare = pc.replace_substring_regex(cells, r"(:\d\d)\.\d+", r"\1")
    bare = pc.replace_substring_regex(bare, r"(:\d\d)(Z|\s?UTC|[+]00:?00)$", r"\1")
    found = pc.strptime(bare, format=form, unit="s", error_is_null=True)
    return found if found.null_count == cells.null_count else None


def _seconds(moments: pa.ChunkedArray) -> pa.ChunkedArray:
    milliseconds = moments.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
    return pc.divide(milliseconds.cast(pa.float64()), 1000.0)
