"""Reads CSV, JSONL and Parquet into rows of text, each with its line, a batch at a time; judges nothing."""

import codecs
import csv
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.schemas import REJECTED_ROWS
from caliber_pipeline.stores.jsonl_blocks import Block, float_text, iter_blocks, json_text, parse_block

FORMATS: Final = {".csv": "CSV", ".jsonl": "JSONL", ".ndjson": "JSONL", ".parquet": "Parquet"}
BLOCK_BYTES: Final = 8 << 20  # a row must fit into it; larger blocks are slower and take more memory
_PARQUET_BATCH_ROWS: Final = 16_384
_SCANNED_ROWS: Final = 512  # at a time; columns of bytes may hold images
_CHUNK_BYTES: Final = 1 << 20
T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RawRows:
    """Rows of a file, as text.

    Attributes:
        source: The file's name.
        table: One string column per column of the file; blank is null. In place of a Parquet column of bytes that are
            no text there is a binary column of nulls.
        lines: The line of the file on which each row starts (row numbers for Parquet), int64.
        broken: Rows that could not be read at all, in the schema of rejected rows.
        raws: The rows as they stand in the file; None where a CSV line of their values shows them.
    """

    source: str
    table: pa.Table
    lines: pa.Array
    broken: pa.Table
    raws: pa.ChunkedArray | None = None

    def render_raw(self, is_chosen: pa.Array) -> list[str]:
        """The text of the chosen rows, to show a rejected one."""
        if self.raws is None:
            return _csv_lines(self.table.filter(is_chosen))
        texts: list[str] = pc.utf8_rtrim(self.raws.filter(is_chosen), "\r\n").to_pylist()
        return texts


class InputFile:
    """A file of rows that is read in batches, as often as needed; its memory does not grow with the file."""

    def __init__(self, path: Path) -> None:
        """Look at the file's head.

        Raises:
            InputError: the file is missing, empty, of an unknown format, or has no usable header.
        """
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "no such file"
            raise InputError(f"{path}: {what}; give a CSV, JSONL or Parquet file")
        format_ = FORMATS.get(path.suffix.lower())
        if format_ is None:
            raise InputError(f"{path}: unknown format '{path.suffix}'; give one of {', '.join(FORMATS)}")
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty; it needs at least a header and one row")
        self.path = path
        self._format = format_
        names = {"CSV": _csv_header, "JSONL": _jsonl_names, "Parquet": _parquet_names}[format_](path)
        self.names = tuple(names)
        self._left_out = _columns_of_no_text(path) if format_ == "Parquet" else ()
        if self._left_out:
            _log.warning("%s: left out %s: bytes that are no UTF-8 text", path, ", ".join(self._left_out))

    def find_more_names(self) -> bool:
        """Look for columns that only later lines of JSONL have, for which the whole file is read once.

        Returns:
            Whether there are any; they are among the names from now on.

        Raises:
            InputError: the file is not UTF-8.
        """
        if self._format != "JSONL":
            return False
        names = dict.fromkeys(self.names)
        for block in _jsonl_blocks(self.path):
            names.update(dict.fromkeys(block.names))
        is_more = len(names) > len(self.names)
        self.names = tuple(names)
        return is_more

    def batches(self) -> Iterator[RawRows]:
        """All rows in the order of the file, every batch with all columns.

        Raises:
            InputError: the file is not UTF-8, cannot be parsed, has no rows, or it has columns that are not among the
                names: see `find_more_names`.
        """
        read: Mapping[str, Callable[[Path, Sequence[str]], Iterator[RawRows]]] = {
            "CSV": _csv_batches,
            "JSONL": _jsonl_batches,
            "Parquet": partial(_parquet_batches, left_out=self._left_out),
        }
        n_rows = 0
        for rows in read[self._format](self.path, self.names):
            n_rows += rows.table.num_rows + rows.broken.num_rows
            yield rows
        if not n_rows:
            raise InputError(f"{self.path}: the file has no rows below its header")


def load_rows(path: Path) -> RawRows:
    """Read a file of rows whole.

    Raises:
        InputError: the file is missing, empty, of an unknown format, not UTF-8, or has no usable header.
    """
    batches = with_all_names(InputFile(path), lambda file: list(file.batches()))
    lines = pa.concat_arrays([rows.lines for rows in batches])
    table = pa.concat_tables([rows.table for rows in batches])
    broken = pa.concat_tables([rows.broken for rows in batches])
    raws = [chunk for rows in batches if rows.raws is not None for chunk in rows.raws.chunks]
    return RawRows(path.name, table, lines, broken, pa.chunked_array(raws) if raws else None)


def with_all_names(file: InputFile, read: Callable[[InputFile], T]) -> T:
    """What comes of reading a file; where that fails for want of a column, it is read again with all there are."""
    try:
        return read(file)
    except InputError:
        if not file.find_more_names():
            raise
    return read(file)


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


def _csv_header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except UnicodeDecodeError:
        _check_utf8(path)
        raise
    except csv.Error as error:
        raise InputError(f"{path}: the first line is no CSV ({error}); save it as UTF-8 CSV") from error
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


def _csv_batches(path: Path, names: Sequence[str]) -> Iterator[RawRows]:
    broken: list[_BrokenRow] = []

    def keep_broken(row: pyarrow.csv.InvalidRow) -> str:
        reason = f"has {row.actual_columns} values for {row.expected_columns} columns"
        broken.append(_BrokenRow(row.number, reason, row.text))
        return "skip"

    numbering = _LineNumbering(path.name, sum(name.count("\n") for name in names))
    try:
        reader = pyarrow.csv.open_csv(
            path,
            # rows are numbered only where one thread reads them
            read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
            parse_options=pyarrow.csv.ParseOptions(
                newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=keep_broken
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
            ),
        )
        for batch in reader:
            yield numbering.locate(pa.Table.from_batches([batch]), broken)
        if broken:
            yield numbering.locate(reader.schema.empty_table(), broken)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        _check_utf8(path)
        raise InputError(f"{path}: {error}; is it comma-separated with quoted texts?") from error


@dataclass(frozen=True)
class _BrokenRow:
    number: int
    reason: str
    text: str


class _LineNumbering:
    """Finds the line on which each row starts, from the line breaks in the rows before it."""

    def __init__(self, source: str, n_breaks_in_header: int) -> None:
        self._source = source
        self._next_number = 2  # 1 is the header
        self._next_line = 2 + n_breaks_in_header

    def locate(self, table: pa.Table, broken: list[_BrokenRow]) -> RawRows:
        """The rows of a batch with their lines; takes from `broken` those that stand before or among them."""
        n_here = _count_before(self._next_number + table.num_rows, [row.number for row in broken])
        here, broken[:] = broken[:n_here], broken[n_here:]
        n_all = table.num_rows + len(here)
        is_broken = np.zeros(n_all, dtype=bool)
        broken_at = np.array([row.number - self._next_number for row in here], dtype=np.int64)
        is_broken[broken_at] = True
        heights = np.ones(n_all, dtype=np.int64)
        heights[~is_broken] += sum((_count_breaks(column) for column in table.columns), np.int64(0))
        heights[broken_at] += np.array([row.text.count("\n") for row in here], dtype=np.int64)
        ends = self._next_line + np.cumsum(heights)
        starts = ends - heights
        self._next_number += n_all
        self._next_line = int(ends[-1]) if n_all else self._next_line
        rejected = rejected_rows(
            self._source, starts[broken_at].tolist(), [row.reason for row in here], [row.text for row in here]
        )
        lines = pa.array(starts[~is_broken], pa.int64())
        is_row = _has_content(table)
        if is_row is not None:
            table, lines = table.filter(is_row), lines.filter(is_row)
        return RawRows(self._source, table, lines, rejected)


def _count_before(number: int, broken: Sequence[int]) -> int:
    """How many of the broken rows stand before the row after the last one, each of them moving it by one."""
    n = 0
    while n < len(broken) and broken[n] <= number + n:
        n += 1
    return n


def _count_breaks(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Line feeds in each text of a string column."""
    counts = [np.zeros(0, dtype=np.int64)]
    for chunk in column.chunks:
        _, offset_buffer, data = chunk.buffers()
        if data is None or not len(chunk):
            counts.append(np.zeros(len(chunk), dtype=np.int64))
            continue
        offsets = np.frombuffer(offset_buffer, np.int32, len(chunk) + 1, chunk.offset * 4)
        breaks = np.flatnonzero(np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]] == ord("\n")) + offsets[0]
        rows = np.searchsorted(offsets, breaks, side="right") - 1
        counts.append(np.bincount(rows, minlength=len(chunk)))
    return np.concatenate(counts)


def _has_content(table: pa.Table) -> pa.Array | None:
    """Whether any value of each row is there; None where that holds for all."""
    if any(column.null_count == 0 for column in table.columns):
        return None
    has_content = pc.is_valid(table.column(0))
    for column in table.columns[1:]:
        has_content = pc.or_(has_content, pc.is_valid(column))
    return has_content.combine_chunks()


def _jsonl_names(path: Path) -> list[str]:
    """The names in the first block, in the order in which they first occur."""
    first = next(_jsonl_blocks(path), None)
    return first.names if first else []


def _jsonl_batches(path: Path, names: Sequence[str]) -> Iterator[RawRows]:
    for block in _jsonl_blocks(path):
        if late := [name for name in block.names if name not in names]:
            raise InputError(f"{path}: {late[:3]} are columns that do not occur before line {block.lines[0]}")
        n_rows = len(block.lines)
        columns = {name: block.columns.get(name, pa.nulls(n_rows, pa.string())) for name in names}
        faults = list(zip(*block.broken, strict=True)) or [(), (), ()]
        broken = rejected_rows(path.name, *faults)
        yield RawRows(path.name, pa.table(columns), block.lines, broken, pa.chunked_array([block.raws]))


def _jsonl_blocks(path: Path) -> Iterator[Block]:
    line = 1
    try:
        for text in iter_blocks(path, BLOCK_BYTES):
            block = parse_block(text, line)
            yield block
            line = block.next_line
    except UnicodeDecodeError:
        _check_utf8(path)
        raise


def _parquet_file(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: is not a Parquet file ({error}); save it again") from error


def _parquet_names(path: Path) -> list[str]:
    with _parquet_file(path) as file:
        names: list[str] = file.schema_arrow.names
    _refuse_repeats(path, names)
    return names


def _columns_of_no_text(path: Path) -> tuple[str, ...]:
    """The columns that hold bytes, not all of them UTF-8."""
    with _parquet_file(path) as file:
        names = [field.name for field in file.schema_arrow if _holds_bytes(field.type)]
        return tuple(name for name in names if not _is_text(file, name))


def _holds_bytes(type_: pa.DataType) -> bool:
    if isinstance(type_, pa.BaseExtensionType):
        return _holds_bytes(type_.storage_type)
    if pa.types.is_dictionary(type_):
        return _holds_bytes(type_.value_type)
    if pa.types.is_nested(type_):
        return any(_holds_bytes(type_.field(place).type) for place in range(type_.num_fields))
    kinds = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(is_kind(type_) for is_kind in kinds)


def _is_text(file: pq.ParquetFile, name: str) -> bool:
    try:
        for batch in file.iter_batches(_SCANNED_ROWS, columns=[name]):
            _text_column(pa.chunked_array([batch.column(name)]))
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return False
    return True


def _parquet_batches(path: Path, names: Sequence[str], left_out: Sequence[str]) -> Iterator[RawRows]:
    next_line = 1
    read_names = [name for name in names if name not in left_out]
    with _parquet_file(path) as file:
        for batch in file.iter_batches(_PARQUET_BATCH_ROWS, columns=read_names if left_out else None):
            stored = pa.Table.from_batches([batch])
            columns = {name: pa.nulls(batch.num_rows, pa.binary()) for name in names}
            columns |= {name: _text_column(stored.column(name)) for name in read_names}
            lines = pa.array(np.arange(next_line, next_line + batch.num_rows), pa.int64())
            next_line += batch.num_rows
            yield RawRows(path.name, pa.table(columns), lines, REJECTED_ROWS.empty_table())


def _text_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_nested(column.type):
        return pa.chunked_array([pa.array([json_text(v) for v in column.to_pylist()], pa.string())])
    text = float_text(column) if pa.types.is_floating(column.type) else column.cast(pa.string())
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def _csv_lines(table: pa.Table) -> list[str]:
    """Each row as a CSV line."""
    fields = []
    for column in table.columns:
        text = pc.fill_null(column.cast(pa.string()), "")
        needs_quotes = pc.match_substring_regex(text, '[,"\r\n]')
        doubled = pc.replace_substring(text, '"', '""')
        fields.append(pc.if_else(needs_quotes, pc.binary_join_element_wise('"', doubled, '"', ""), text))
    raws: list[str] = pc.binary_join_element_wise(*fields, ",").to_pylist() if fields else []
    return raws
