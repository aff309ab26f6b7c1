"""Reads CSV, JSONL and Parquet into rows of text, each with its line; judges nothing."""

import codecs
import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.schemas import REJECTED_ROWS

FORMATS: Final = {".csv": "CSV", ".jsonl": "JSONL", ".ndjson": "JSONL", ".parquet": "Parquet"}
_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class RawRows:
    """What a file holds, as text.

    Attributes:
        source: The file's name.
        table: One string column per column of the file; blank is null.
        lines: The line of the file on which each row starts (row numbers for Parquet), int64.
        broken: Rows that could not be read at all, in the schema of rejected rows.
    """

    source: str
    table: pa.Table
    lines: pa.Array
    broken: pa.Table


def load_rows(path: Path) -> RawRows:
    """Read a file of rows.

    Raises:
        InputError: the file is missing, empty, of an unknown format, not UTF-8, or has no usable header.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a CSV, JSONL or Parquet file")
    format_ = FORMATS.get(path.suffix.lower())
    if format_ is None:
        raise InputError(f"{path}: unknown format '{path.suffix}'; give one of {', '.join(FORMATS)}")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; it needs at least a header and one row")
    if format_ == "Parquet":
        rows = _load_parquet(path)
    else:
        _check_utf8(path)
        rows = _load_csv(path) if format_ == "CSV" else _load_jsonl(path)
    if rows.table.num_rows + rows.broken.num_rows == 0:
        raise InputError(f"{path}: the file has no rows below its header")
    return rows


def rejected_rows(source: str, lines: Sequence[int | None], reasons: Sequence[str], raws: Sequence[str]) -> pa.Table:
    """Rows in the schema of rejected rows."""
    return pa.Table.from_pydict(
        {"source": [source] * len(reasons), "line": list(lines), "reason": list(reasons), "raw": list(raws)},
        schema=REJECTED_ROWS,
    )


def _check_utf8(path: Path) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                line += chunk.count(b"\n", 0, max(error.start, 0))
                raise InputError(f"{path}: line {line} is not UTF-8 ({error.reason}); save the file as UTF-8") from None
            line += chunk.count(b"\n")
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise InputError(f"{path}: the last line ends inside a UTF-8 character; save the file again") from None


def _load_csv(path: Path) -> RawRows:
    header = _csv_header(path)
    broken: list[tuple[int, str, str]] = []

    def keep_broken(row: pyarrow.csv.InvalidRow) -> str:
        broken.append((row.number, f"has {row.actual_columns} values for {row.expected_columns} columns", row.text))
        return "skip"

    try:
        table = pyarrow.csv.read_csv(
            path,
            # rows are numbered only where one thread reads them
            read_options=pyarrow.csv.ReadOptions(use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(
                newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=keep_broken
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=True, null_values=[""]
            ),
        )
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: {error}; is it comma-separated with quoted texts?") from error
    lines, broken_lines = _csv_lines(table, broken)
    rejected = rejected_rows(path.name, broken_lines, [b[1] for b in broken], [b[2] for b in broken])
    is_row = _has_content(table)
    return RawRows(path.name, table.filter(is_row), lines.filter(is_row), rejected)


def _csv_header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    if not any(name.strip() for name in header):
        raise InputError(f"{path}: the first line is blank; it must name the columns")
    if "\0" in "".join(header):
        raise InputError(f"{path}: is not text; save it as UTF-8 CSV")
    _refuse_repeats(path, header)
    return header


def _refuse_repeats(path: Path, names: Sequence[str]) -> None:
    repeats = sorted({name for name in names if names.count(name) > 1})
    if repeats:
        raise InputError(f"{path}: {len(repeats)} column names repeat, e.g. {repeats[:3]}; rename the repeats")


def _csv_lines(table: pa.Table, broken: Sequence[tuple[int, str, str]]) -> tuple[pa.Array, list[int]]:
    """The line on which each row starts, from its number in the file and the line breaks in the rows before it."""
    import numpy as np

    breaks_in_rows = np.zeros(table.num_rows, dtype=np.int64)
    for column in table.columns:
        breaks = pc.fill_null(pc.count_substring(column, "\n"), 0)
        breaks_in_rows += breaks.to_numpy().astype(np.int64)
    breaks_in_header = sum(name.count("\n") for name in table.column_names)
    n_all = table.num_rows + len(broken)
    broken_at = np.array([number - 2 for number, _, _ in broken], dtype=np.int64)  # 1 is the header
    is_broken = np.zeros(n_all, dtype=bool)
    is_broken[broken_at] = True
    heights = np.ones(n_all, dtype=np.int64)
    heights[~is_broken] += breaks_in_rows
    heights[broken_at] += np.array([text.count("\n") for _, _, text in broken], dtype=np.int64)
    starts = 2 + breaks_in_header + np.concatenate([[0], np.cumsum(heights)[:-1]]) if n_all else heights
    return pa.array(starts[~is_broken], pa.int64()), starts[broken_at].tolist()


def _has_content(table: pa.Table) -> pa.Array:
    has_content = pa.array([False] * table.num_rows, pa.bool_())
    for column in table.columns:
        has_content = pc.or_(has_content, pc.is_valid(column).combine_chunks())
    return has_content


def _load_jsonl(path: Path) -> RawRows:
    contents: list[Mapping[str, Any]] = []
    lines: list[int] = []
    broken: list[tuple[int, str, str]] = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                content = json.loads(line)
            except json.JSONDecodeError as error:
                broken.append((number, f"is not JSON: {error.msg} at column {error.colno}", line.rstrip("\n")))
                continue
            if isinstance(content, dict):
                contents.append(content)
                lines.append(number)
            else:
                broken.append((number, "is not a JSON object", line.rstrip("\n")))
    names = list(dict.fromkeys(name for content in contents for name in content))
    columns = {name: pa.array([_json_text(c.get(name)) for c in contents], pa.string()) for name in names}
    rejected = rejected_rows(path.name, [b[0] for b in broken], [b[1] for b in broken], [b[2] for b in broken])
    return RawRows(path.name, pa.table(columns), pa.array(lines, pa.int64()), rejected)


def _json_text(value: Any) -> str | None:  # noqa: ANN401 - JSON values are of any type
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _load_parquet(path: Path) -> RawRows:
    try:
        stored = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: is not a Parquet file ({error}); save it again") from error
    _refuse_repeats(path, stored.column_names)
    columns = {name: _text_column(stored.column(name)) for name in stored.column_names}
    lines = pa.array(range(1, stored.num_rows + 1), pa.int64())
    return RawRows(path.name, pa.table(columns), lines, REJECTED_ROWS.empty_table())


def _text_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_nested(column.type):
        return pa.chunked_array([pa.array([_json_text(v) for v in column.to_pylist()], pa.string())])
    text = column.cast(pa.string())  # 1.0 becomes "1": an integer column with nulls keeps its ids
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def render_raw(table: pa.Table) -> list[str]:
    """Each row as a CSV line, to show a rejected row as it was read."""
    raws = []
    for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="").writerow(["" if v is None else v for v in row])
        raws.append(buffer.getvalue())
    return raws
