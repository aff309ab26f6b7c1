"""Reads CSV, JSONL and Parquet into rows of text, each with its line, a batch at a time; judges nothing."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.schemas import REJECTED_ROWS
from caliber_pipeline.stores.csv_rows import read_batches, read_head
from caliber_pipeline.stores.input_bytes import check_utf8, find_format, open_bytes
from caliber_pipeline.stores.jsonl_blocks import Block, empty_to_null, float_text, iter_blocks, json_text, parse_block
from caliber_pipeline.stores.raw_rows import RawRows, rejected_rows

BLOCK_BYTES: Final = 8 << 20  # a row must fit into it; larger blocks are slower and take more memory
_PARQUET_BATCH_ROWS: Final = 16_384  # at most: of long texts as many as fit into a block
_PROBED_ROWS: Final = 256
_SCANNED_ROWS: Final = 512  # at a time; columns of bytes may hold images
T = TypeVar("T")
_log = logging.getLogger(__name__)


class InputFile:
    """A file of rows that is read in batches, as often as needed; its memory does not grow with the file."""

    def __init__(self, path: Path) -> None:
        """Look at the file's head.

        Raises:
            InputError: the file is missing, empty, of an unknown format, or has no usable header.
        """
        self.path = path
        self._format = find_format(path)
        self.names: tuple[str, ...]
        self._read: Callable[[], Iterator[RawRows]]
        if self._format == "CSV":
            head = read_head(path)
            self.names = head.names
            self._read = lambda: read_batches(path, head, BLOCK_BYTES)
        elif self._format == "JSONL":
            self.names = _jsonl_names(path)
            self._read = lambda: _jsonl_batches(path, self.names)
        else:
            self.names = _parquet_names(path)
            left_out = _columns_of_no_text(path)
            self._read = lambda: _parquet_batches(path, self.names, left_out)
        if repeats := sorted({name for name in self.names if self.names.count(name) > 1}):
            raise InputError(f"{path}: {len(repeats)} column names repeat, e.g. {repeats[:3]}; rename the repeats")

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
        n_rows = 0
        for rows in self._read():
            n_rows += rows.n_rows
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
    return RawRows(
        path.name, table, lines, broken, pa.chunked_array(raws) if raws else None, delimiter=batches[0].delimiter
    )


def with_all_names(file: InputFile, read: Callable[[InputFile], T]) -> T:
    """What comes of reading a file; where that fails for want of a column, it is read again with all there are."""
    try:
        return read(file)
    except InputError:
        if not file.find_more_names():
            raise
    return read(file)


def _jsonl_names(path: Path) -> tuple[str, ...]:
    """The names in the first block that has any, in the order in which they first occur.

    Raises:
        InputError: there are none.
    """
    why = ""
    for block in _jsonl_blocks(path):
        if block.names:
            return tuple(block.names)
        if block.broken and not why:
            line, reason, _ = block.broken[0]
            why = f" (line {line} {reason})"
    raise InputError(f"{path}: no line of it is a JSON object with values{why}; write one object per line")


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
        with open_bytes(path) as file:
            for text in iter_blocks(file, BLOCK_BYTES):
                block = parse_block(text, line)
                yield block
                line = block.next_line
    except UnicodeDecodeError:
        check_utf8(path)
        raise


def _parquet_file(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: is not a Parquet file ({_in_one_line(error)}); save it again") from error


def _parquet_names(path: Path) -> tuple[str, ...]:
    with _parquet_file(path) as file:
        return tuple(file.schema_arrow.names)


def _columns_of_no_text(path: Path) -> tuple[str, ...]:
    """The columns that hold bytes, not all of them UTF-8."""
    with _parquet_file(path) as file:
        names = [field.name for field in file.schema_arrow if _holds_bytes(field.type)]
        left_out = tuple(name for name in names if not _is_text(file, name))
    if left_out:
        _log.warning("%s: left out %s: bytes that are no UTF-8 text", path, ", ".join(left_out))
    return left_out


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
        for batch in _stored_batches(path, file, read_names, left_out):
            stored = pa.Table.from_batches([batch])
            columns = {name: pa.nulls(batch.num_rows, pa.binary()) for name in names}
            columns |= {name: _text_column(stored.column(name)) for name in read_names}
            lines = pa.array(np.arange(next_line, next_line + batch.num_rows), pa.int64())
            next_line += batch.num_rows
            yield RawRows(path.name, pa.table(columns), lines, REJECTED_ROWS.empty_table())


def _stored_batches(
    path: Path, file: pq.ParquetFile, names: Sequence[str], left_out: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    columns = list(names) if left_out else None
    try:
        first = next(file.iter_batches(_PROBED_ROWS, columns=columns), None)
        n_bytes = 0.0 if first is None else first.nbytes / max(1, first.num_rows)  # of texts that repeat one is stored
        n_bytes = max(1.0, n_bytes, _stored_row_bytes(file.metadata, left_out))
        yield from file.iter_batches(max(1, min(_PARQUET_BATCH_ROWS, int(BLOCK_BYTES / n_bytes))), columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: is damaged ({_in_one_line(error)}); write or copy it again") from error


def _stored_row_bytes(metadata: pq.FileMetaData, left_out: Sequence[str]) -> float:
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    parts = (group.column(number) for group in groups for number in range(group.num_columns))
    others = tuple(f"{name}." for name in left_out)
    sizes = (part.total_uncompressed_size for part in parts if not f"{part.path_in_schema}.".startswith(others))
    return float(sum(sizes) / max(1, metadata.num_rows))


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _text_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_nested(column.type):
        return pa.chunked_array([pa.array([json_text(v) for v in column.to_pylist()], pa.string())])
    return float_text(column) if pa.types.is_floating(column.type) else empty_to_null(column.cast(pa.string()))
