"""Reads blocks of JSON lines: whole blocks at once where Arrow reads them as Python would, else line by line."""

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
from numpy.typing import NDArray

MAX_DEPTH: Final = 100  # far above what people write, far below what Python's json reads on any stack
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_MAX_BRACKETS: Final = 500  # in a line that Arrow reads: it overflows the stack at some ten thousand levels
_EXACT_BELOW: Final = 2.0**53  # from here on floats no longer tell neighbouring integers apart
_SHORT_FROM: Final = 1e-4  # below it Python writes an exponent, Arrow does not
_HALF_PAIR: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Block:
    """What a block of lines holds.

    Attributes:
        columns: The objects' values as text by name, blank as null; the names in the order of their first occurrence.
        lines: The line of each object, int64.
        raws: The text of that line; its line end may follow.
        broken: Line, reason and raw text of every line that is no object.
        next_line: The line that follows the block.
    """

    columns: Mapping[str, pa.Array | pa.ChunkedArray]
    lines: pa.Array
    raws: pa.Array
    broken: Sequence[tuple[int, str, str]]
    next_line: int

    @property
    def names(self) -> list[str]:
        """The columns' names."""
        return list(self.columns)


def iter_blocks(file: IO[bytes], block_bytes: int) -> Iterator[bytes]:
    """The file in blocks of whole lines.

    Raises:
        UnicodeDecodeError: a block is not UTF-8.
    """
    if file.read(len(_BYTE_ORDER_MARK)) != _BYTE_ORDER_MARK:
        file.seek(0)
    while block := file.read(block_bytes):
        block += file.readline()
        block.decode("utf-8")
        yield block


def parse_block(block: bytes, first_line: int) -> Block:
    """Read a block of whole lines."""
    breaks = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
    next_line = first_line + len(breaks)
    ends = breaks + 1 if block.endswith(b"\n") else np.append(breaks + 1, len(block))
    columns = _read_at_once(block, ends)
    if columns is None:
        return _read_each(block, first_line, next_line)
    lines = pa.array(np.arange(first_line, first_line + len(ends)), pa.int64())
    return Block(columns, lines, _view_lines(block, ends), (), next_line)


def _view_lines(block: bytes, ends: NDArray[np.int64]) -> pa.Array:
    """The block's lines, which are not copied."""
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    return pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(block))


def json_text(value: Any) -> str | None:  # noqa: ANN401 - JSON values are of any type
    """A JSON value as text: a string as it is, blank and NaN as None, 1.0 as 1, anything else as JSON."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if value.is_integer() and abs(value) < _EXACT_BELOW:
            return str(int(value))
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: object) -> str:
    """What JSON has no form for: times, decimals, bytes."""
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def float_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of floats as text: NaN as null, 1.0 as 1, so that a column of integers with gaps keeps its ids."""
    numbers = column.cast(pa.float64())
    is_whole = pc.and_(pc.equal(pc.floor(numbers), numbers), pc.less(pc.abs(numbers), _EXACT_BELOW))
    nothing = pa.scalar(None, pa.float64())
    whole = pc.if_else(is_whole, numbers, nothing).cast(pa.int64()).cast(pa.string())
    rest = pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.string()), column.cast(pa.string()))
    return pc.coalesce(whole, rest)


def empty_to_null(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column with null for ""; not copied where it has none."""
    is_empty = pc.equal(texts, "")
    return pc.if_else(is_empty, pa.scalar(None, pa.string()), texts) if pc.any(is_empty).as_py() else texts


def _read_at_once(block: bytes, ends: NDArray[np.int64]) -> dict[str, pa.ChunkedArray] | None:
    """The columns, or None where Arrow does not read the block, or may not read it as Python's json does."""
    data = np.frombuffer(block, np.uint8)
    last_at = ends - 1
    for line_end in (ord("\n"), ord("\r")):
        last_at -= data[last_at] == line_end
    if (data[np.concatenate([[0], ends[:-1]])] != ord("{")).any() or (data[last_at] != ord("}")).any():
        return None
    if _may_be_deep(data, ends):
        return None
    try:
        table = _read_json(block, pa.schema([]))
        # texts that look like dates stay texts
        dates = [field.name for field in table.schema if pa.types.is_timestamp(field.type)]
        if dates:
            table = _read_json(block, pa.schema([(name, pa.string()) for name in dates]))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    if table.num_rows != len(ends):
        return None
    columns = {name: _text(table.column(name)) for name in table.column_names}
    return None if any(column is None for column in columns.values()) else columns


def _may_be_deep(data: NDArray[np.uint8], ends: NDArray[np.int64]) -> bool:
    """Whether a line has so many opening brackets that Arrow, which bounds no depth, might overflow the stack."""
    is_open = [data == ord(bracket) for bracket in "[{"]
    if sum(np.count_nonzero(each) for each in is_open) - len(ends) <= _MAX_BRACKETS:  # every line has one at least
        return False
    opens = np.flatnonzero(is_open[0] | is_open[1])
    return bool(np.bincount(np.searchsorted(ends, opens, side="right")).max() > _MAX_BRACKETS)


def _read_json(block: bytes, schema: pa.Schema) -> pa.Table:
    return pyarrow.json.read_json(
        pa.BufferReader(block),
        read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(block) + 1),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="infer"),
    )


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """A column as text; None where Python's json would, or might, have given another: nested, large, tiny numbers."""
    if pa.types.is_nested(column.type):
        return None
    if pa.types.is_floating(column.type):
        text, size = float_text(column), pc.abs(column)
        is_short = pc.or_(pc.equal(size, 0), pc.and_(pc.greater_equal(size, _SHORT_FROM), pc.less(size, _EXACT_BELOW)))
        is_plain = pc.and_(is_short, pc.match_substring_regex(text, r"^-?\d+(\.\d+)?$"))
        return text if pc.all(pc.or_kleene(is_plain, pc.is_nan(column))).as_py() else None
    return empty_to_null(column.cast(pa.string()))


def _read_each(block: bytes, first_line: int, next_line: int) -> Block:
    rows: list[Mapping[str, str | None]] = []
    lines: list[int] = []
    raws: list[str] = []
    broken: list[tuple[int, str, str]] = []
    for number, line in enumerate(block.decode("utf-8").removesuffix("\n").split("\n"), start=first_line):
        if not line.strip():
            continue
        row = _read_line(line)
        if isinstance(row, str):
            broken.append((number, row, line.rstrip("\r")))
        else:
            rows.append(row)
            lines.append(number)
            raws.append(line)
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in names}
    return Block(columns, pa.array(lines, pa.int64()), pa.array(raws, pa.string()), broken, next_line)


def _read_line(line: str) -> dict[str, str | None] | str:
    """The texts of a line's object, or why there are none."""
    try:
        content = json.loads(line, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        return f"is not JSON: {error.msg} at column {error.colno}"
    except _RepeatedNameError as error:
        return f"names '{_HALF_PAIR.sub('?', str(error))}' twice"
    except RecursionError:
        return f"is nested more than {MAX_DEPTH} levels deep"
    except ValueError:
        return f"holds an integer of more than {sys.get_int_max_str_digits()} digits"
    if not isinstance(content, dict):
        return "is not a JSON object"
    if line.count("[") + line.count("{") > MAX_DEPTH and _is_deep(content):
        return f"is nested more than {MAX_DEPTH} levels deep"
    row = {name: json_text(value) for name, value in content.items()}
    for name, text in row.items() if "\\u" in line else ():
        if _HALF_PAIR.search(name + (text or "")):
            shown = _HALF_PAIR.sub("?", name)
            return f"'{shown}' holds half a surrogate pair (\\ud800 to \\udfff), which is no character"
    return row


class _RepeatedNameError(Exception):
    """An object has two values of one name, of which Python would keep the last."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedNameError(next(name for name in content if names.count(name) > 1))
    return content


def _is_deep(content: object) -> bool:
    level = [content]
    for _ in range(MAX_DEPTH):
        nested = [value for value in level if isinstance(value, dict | list)]
        level = [inner for value in nested for inner in (value.values() if isinstance(value, dict) else value)]
    return any(isinstance(value, dict | list) for value in level)
