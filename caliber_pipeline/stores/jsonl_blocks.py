"""Reads blocks of JSON lines: whole blocks at once where Arrow reads them as Python would, else line by line."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Block:
    """What a block of lines holds.

    Attributes:
        columns: The objects' values as text by name, blank as null; the names in the order of their first occurrence.
        lines: The line of each object, int64.
        broken: Line, reason and raw text of every line that is no object.
    """

    columns: Mapping[str, pa.Array | pa.ChunkedArray]
    lines: pa.Array
    broken: Sequence[tuple[int, str, str]]

    @property
    def names(self) -> list[str]:
        """The columns' names."""
        return list(self.columns)


def iter_blocks(path: Path, block_bytes: int) -> Iterator[tuple[bytes, int]]:
    """The file in blocks of whole lines, each with the number of its first line.

    Raises:
        UnicodeDecodeError: a block is not UTF-8.
    """
    line = 1
    with path.open("rb") as file:
        if file.read(len(_BYTE_ORDER_MARK)) != _BYTE_ORDER_MARK:
            file.seek(0)
        while block := file.read(block_bytes):
            block += file.readline()
            block.decode("utf-8")
            yield block, line
            line += block.count(b"\n")


def parse_block(block: bytes, first_line: int) -> Block:
    """Read a block of whole lines."""
    columns = _read_at_once(block)
    if columns is not None:
        n_rows = block.count(b"\n") + (not block.endswith(b"\n"))
        return Block(columns, pa.array(np.arange(first_line, first_line + n_rows), pa.int64()), ())
    return _read_each(block, first_line)


def json_text(value: Any) -> str | None:  # noqa: ANN401 - JSON values are of any type
    """A JSON value as text: a string as it is, blank as None, anything else as JSON."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _read_at_once(block: bytes) -> dict[str, pa.ChunkedArray] | None:
    """The columns, or None where Arrow does not read the block, or may not read it as Python's json does."""
    data = np.frombuffer(block.removesuffix(b"\n"), np.uint8)
    breaks = np.flatnonzero(data == ord("\n"))
    first, last = data[np.concatenate([[0], breaks + 1])[: len(data)]], data[np.concatenate([breaks, [len(data)]]) - 1]
    if not len(data) or (first != ord("{")).any() or (last != ord("}")).any():
        return None
    try:
        table = _read_json(block, pa.schema([]))
        # texts that look like dates stay texts
        dates = [field.name for field in table.schema if pa.types.is_timestamp(field.type)]
        if dates:
            table = _read_json(block, pa.schema([(name, pa.string()) for name in dates]))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    if table.num_rows != len(breaks) + 1:
        return None
    columns = {name: _text(table.column(name)) for name in table.column_names}
    return None if any(column is None for column in columns.values()) else columns


def _read_json(block: bytes, schema: pa.Schema) -> pa.Table:
    return pyarrow.json.read_json(
        pa.BufferReader(block),
        read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(block) + 1),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="infer"),
    )


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """A column as text; None where its text is not told from its values: nested, or 1.0 that may have been 1."""
    if pa.types.is_nested(column.type):
        return None
    text = column.cast(pa.string())
    if pa.types.is_floating(column.type) and not pc.all(pc.match_substring_regex(text, r"^-?\d+\.\d+$")).as_py():
        return None
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def _read_each(block: bytes, first_line: int) -> Block:
    contents: list[Mapping[str, Any]] = []
    lines: list[int] = []
    broken: list[tuple[int, str, str]] = []
    for number, line in enumerate(block.decode("utf-8").removesuffix("\n").split("\n"), start=first_line):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except json.JSONDecodeError as error:
            broken.append((number, f"is not JSON: {error.msg} at column {error.colno}", line.rstrip("\r")))
            continue
        if isinstance(content, dict):
            contents.append(content)
            lines.append(number)
        else:
            broken.append((number, "is not a JSON object", line.rstrip("\r")))
    names = list(dict.fromkeys(name for content in contents for name in content))
    columns = {name: pa.array([json_text(c.get(name)) for c in contents], pa.string()) for name in names}
    return Block(columns, pa.array(lines, pa.int64()), broken)
