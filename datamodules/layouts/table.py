"""Tables of examples: CSV, TSV, JSON lines or Parquet → an Arrow table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from datamodules.layouts.written import written_numbers
from datamodules.readers.json_text import DEEPEST, is_deep, load_json
from datamodules.readers.text import BOM, decode_utf8

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
_DELIMITERS = ",;\t|"
_MOST_BYTES = 2**36  # of a table in memory: 64 GiB
_BLOCK = 2**24  # bytes that are parsed at once; a longer row asks for more


def read_table(
    path: Path,
    *,
    missing_cells: Sequence[str] = ("",),
    quoted: bool | None = None,
    errors: str = "raise",
) -> pa.Table:
    """Reads a table whose first line (CSV, TSV) or keys name the columns.

    Cells of CSV and TSV come as strings, as they are written: `numbers` says whether they are
    numbers. A byte order mark, carriage returns, and line ends inside quotes do not matter.

    Args:
        path: a file of one of `SUFFIXES`.
        missing_cells: what stands for nothing in CSV and TSV.
        quoted: whether quotation marks enclose cells; None = in CSV they do, in TSV they are text.
        errors: bytes that are not UTF-8: "raise", or "replace" by U+FFFD.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such table; the message names the line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no table {path}: point data.path at it")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path} is none of {', '.join(SUFFIXES)}: convert or rename it.")
    if path.stat().st_size == 0:
        raise ValueError(f"The table {path} has zero bytes: replace it.")
    try:
        if suffix == ".parquet":
            table = _read_parquet(path)
        elif suffix in (".csv", ".tsv"):
            if quoted is None:
                quoted = suffix == ".csv"
            table = _read_csv(path, missing_cells, quoted, errors, "\t" if suffix == ".tsv" else "")
        else:
            table = _read_json(path, errors)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"The table {path} cannot be read: {error}") from error
    if not table.num_rows:
        raise ValueError(f"The table {path} has no rows: add an example a row.")
    doubled = sorted({n for n in table.column_names if table.column_names.count(n) > 1})
    if doubled:
        raise ValueError(f"{path} names several columns {', '.join(doubled)}: rename them.")
    return table


def numbers(column: pa.ChunkedArray, *, max_strays: float = 0.0) -> pa.ChunkedArray | None:
    """A column as float64 with nulls where cells are missing; None if it holds anything else.

    Args:
        column: of numbers, or of strings that are numbers as people write them.
        max_strays: part of its cells that may be no numbers, and are taken for missing.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (_is_number(kind) or is_text):
        return None
    try:
        found = (pc.utf8_trim_whitespace(column) if is_text else column).cast(
            pa.float64(), safe=False
        )
    except pa.ArrowInvalid:
        if not is_text:
            return None
        found = written_numbers(column, max_strays=max_strays)
    return None if found is None or found.null_count == len(found) else found


def strings(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of anything scalar as strings; numbers as they would be written.

    Raises:
        ValueError: for lists and objects.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type):
        return column
    try:
        return column.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise ValueError(f"a column of {column.type} cannot be read as names or texts") from error


def is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def is_content(kind: pa.DataType) -> bool:
    """Whether cells are the bytes of files."""
    if pa.types.is_struct(kind):
        return "bytes" in [kind.field(n).name for n in range(kind.num_fields)]
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _read_parquet(path: Path) -> pa.Table:
    from pyarrow import parquet

    refuse_inflated(path, where=f"The table {path}")
    table = parquet.read_table(path, memory_map=True)
    return table.drop([name for name in table.column_names if name.startswith("__index_level_")])


def refuse_inflated(source: Path | pa.Buffer, *, where: str, most: int = _MOST_BYTES) -> None:
    """Refuse a Parquet file that takes more memory than is sensible: it may be very compressed.

    Args:
        source: a file, or its content.
        where: its name, for the message.
        most: bytes.

    Raises:
        ValueError: it does.
    """
    from pyarrow import parquet

    def opened(**options: Any) -> Any:
        content = pa.BufferReader(source) if isinstance(source, pa.Buffer) else source
        return parquet.ParquetFile(content, **options)

    with opened() as file:
        about, names = file.metadata, file.schema_arrow.names
    parts = [
        about.row_group(group).column(column)
        for group in range(about.num_row_groups)
        for column in range(about.num_columns)
    ]
    needed = sum(max(part.total_uncompressed_size, 8 * part.num_values) for part in parts)
    # A text that many rows share is stored once: how long it is shows where it is read so.
    shared = {p.path_in_schema for p in parts if p.physical_type == "BYTE_ARRAY"} & set(names)
    longest = sum(p.total_uncompressed_size * p.num_values for p in parts)
    if needed <= most < longest and shared:
        needed = 0
        with opened(read_dictionary=sorted(shared)) as file:
            for group in range(about.num_row_groups):
                for column in file.read_row_group(group).columns:
                    needed += sum(map(_plain_bytes, column.chunks))
    if needed > most:
        raise ValueError(
            f"{where} takes {needed / 2**30:,.0f} GiB in memory, more than the "
            f"{most / 2**30:,.0f} GiB that are read: split it into several data sets."
        )


def _plain_bytes(chunk: pa.Array) -> int:
    """Of an array, where each row has its own copy of a text that rows share."""
    if not pa.types.is_dictionary(chunk.type):
        return chunk.nbytes
    sizes = pc.binary_length(chunk.dictionary)
    return pc.sum(sizes.cast(pa.int64()).take(chunk.indices)).as_py() or 0


def _read_csv(
    path: Path, missing_cells: Sequence[str], quoted: bool, errors: str, delimiter: str
) -> pa.Table:
    from pyarrow import csv as arrow_csv

    with path.open(encoding="utf-8-sig", errors="replace") as file:  # lines may end in \r alone
        head = file.readline()
    delimiter = delimiter or max(_DELIMITERS, key=head.count)
    names = next(csv.reader([head], delimiter=delimiter, quoting=0 if quoted else 3), [])
    options = {
        "parse_options": arrow_csv.ParseOptions(
            delimiter=delimiter,
            quote_char='"' if quoted else False,
            newlines_in_values=quoted,
        ),
        "convert_options": arrow_csv.ConvertOptions(
            column_types={name.strip("\n"): pa.string() for name in names},
            null_values=list(missing_cells),
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
        ),
    }
    source: Any = str(path)
    if errors == "replace":
        raw = path.read_bytes()
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError:
            source = pa.py_buffer(raw.decode("utf-8", errors="replace").encode("utf-8"))
    for block in (_BLOCK, max(path.stat().st_size + 1, _BLOCK)):
        try:
            read_options = arrow_csv.ReadOptions(block_size=min(block, 2**31 - 1))
            file = pa.BufferReader(source) if isinstance(source, pa.Buffer) else source
            return arrow_csv.read_csv(file, read_options=read_options, **options)
        except pa.ArrowInvalid as error:
            if "straddling" in str(error) and block == _BLOCK:
                continue
            _explain(path, error, delimiter=delimiter, quoted=quoted)
            raise
    raise AssertionError("unreachable")


def _explain(path: Path, error: Exception, *, delimiter: str, quoted: bool) -> None:
    """Looks for the line that Arrow stumbled over, which its message does not tell."""
    refuse_invalid_utf8(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=delimiter, quoting=0 if quoted else 3)
        try:
            wanted = len(next(rows))
            for row in rows:
                if row and len(row) != wanted:
                    raise ValueError(
                        f"{path}, line {rows.line_num} has {len(row)} columns, the first line "
                        f"has {wanted}: repair it, or quote cells that hold the delimiter "
                        f"{delimiter!r}."
                    ) from error
        except csv.Error:
            return


def refuse_invalid_utf8(path: Path) -> None:
    """Raises ValueError naming the first line that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            decode_utf8(line, where=f"{path}, line {number}")


def _read_json(path: Path, errors: str) -> pa.Table:
    from pyarrow import json as arrow_json

    raw = path.read_bytes().removeprefix(BOM)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        if errors == "raise":
            refuse_invalid_utf8(path)
        raw = raw.decode("utf-8", errors="replace").encode("utf-8")
    if raw.lstrip()[:1] == b"[":
        try:
            rows = load_json(raw)
        except ValueError as error:
            raise ValueError(f"The table {path} cannot be read: {error}") from error
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError(f"{path} is a list of something else than objects: give {{…}} a row.")
        return pa.Table.from_pylist(rows)
    for number, line in enumerate(io.BytesIO(raw), start=1):
        if is_deep(line):
            raise ValueError(
                f"{path}, line {number} nests lists and objects more than {DEEPEST} deep."
            )
    # ISO dates would become points in time: everything is kept as it is written.
    parse = arrow_json.ParseOptions(newlines_in_values=False)
    try:
        read = arrow_json.ReadOptions(block_size=_BLOCK)
        return arrow_json.read_json(io.BytesIO(raw), read_options=read, parse_options=parse)
    except pa.ArrowInvalid as error:
        for number, line in enumerate(raw.split(b"\n"), start=1):
            try:
                row = json.loads(line) if line.strip() else {}
            except json.JSONDecodeError as why:
                raise ValueError(f"{path}, line {number} is not JSON: {why}.") from error
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number} is not an object {{…}}.") from error
        raise
