"""Reads the rows of a CSV file, each with the line on which it starts."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.text_bytes import rows_of_bytes, text_bytes
from caliber_pipeline.stores.input_bytes import check_utf8, open_bytes, read_tail
from caliber_pipeline.stores.raw_rows import RawRows, rejected_rows

_OTHER_DELIMITERS: Final = ";\t|"  # where the first line holds no comma
_ADVICE: Final = "close it, or double it where it belongs to the text"


@dataclass(frozen=True)
class CsvHead:
    """What the first line of a CSV file tells.

    Attributes:
        names: The columns' names.
        delimiter: What separates the values.
    """

    names: tuple[str, ...]
    delimiter: str


def read_head(path: Path) -> CsvHead:
    """Read the first line.

    Raises:
        InputError: it does not name columns.
    """
    try:
        with open_bytes(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
            delimiter = "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ","
            row = next(csv.reader(text, delimiter=delimiter), [])
            if len(row) == 1:  # nobody's records have one column
                delimiter = next((char for char in _OTHER_DELIMITERS if char in row[0]), delimiter)
                text.seek(0)
                row = next(csv.reader(text, delimiter=delimiter), [])
    except UnicodeDecodeError:
        check_utf8(path)
        raise
    except csv.Error as error:
        raise InputError(f"{path}: the first line is no CSV ({error}); save it as UTF-8 CSV") from error
    if not any(name.strip() for name in row):
        raise InputError(f"{path}: the first line is blank; it must name the columns")
    if "\0" in "".join(row):
        raise InputError(f"{path}: is not text; save it as UTF-8 CSV")
    return CsvHead(tuple(row), delimiter)


def read_batches(path: Path, head: CsvHead, block_bytes: int) -> Iterator[RawRows]:
    """All rows in the order of the file.

    Args:
        path: The file.
        head: What its first line tells.
        block_bytes: How much is read at a time; a row must fit into it.

    Raises:
        InputError: the file is not UTF-8, or a quoted value does not end.
    """
    broken: list[_BrokenRow] = []

    def keep_broken(row: pyarrow.csv.InvalidRow) -> str:
        reason = f"has {row.actual_columns} values for {row.expected_columns} columns"
        broken.append(_BrokenRow(row.number, reason, row.text))
        return "skip"

    last: RawRows | None = None
    try:
        with open_bytes(path) as file, open_bytes(path) as again:
            numbering = _LineNumbering(path.name, head, again)
            reader = pyarrow.csv.open_csv(
                _UncutLineBreaks(file),
                # rows are numbered only where one thread reads them
                read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=block_bytes),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter=head.delimiter,
                    newlines_in_values=True,
                    ignore_empty_lines=False,
                    invalid_row_handler=keep_broken,
                ),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(head.names, pa.string()), strings_can_be_null=True, null_values=[""]
                ),
            )
            for batch in reader:
                rows = numbering.locate(pa.Table.from_batches([batch]), broken)
                last = rows if rows.n_rows else last
                yield rows
            if broken:
                yield (last := numbering.locate(reader.schema.empty_table(), broken))
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        check_utf8(path)
        if _is_one_line(path):
            return  # a header, which Arrow takes for no CSV where no line break ends it
        if "straddling" in str(error):
            raise InputError(
                f"{path}: a row from line {numbering.next_line} on does not end within {block_bytes >> 20} MB; "
                f"if a quote is open there, {_ADVICE}; if the text is as long as that, leave it out or write JSONL"
            ) from error
        raise InputError(f"{path}: {error}; is it comma-separated with quoted texts?") from error
    if last is not None:
        _refuse_open_quote(path, last)


def _is_one_line(path: Path) -> bool:
    with open_bytes(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig") as text:
        text.readline()
        return not text.read(1)


def _refuse_open_quote(path: Path, rows: RawRows) -> None:
    """Arrow ends a quoted text where the file ends: the rows that an open quote swallows would be missed by nobody.

    Args:
        path: The file.
        rows: Its last rows.

    Raises:
        InputError: the last row holds others behind an open quote.
    """
    lines, broken_lines = rows.lines[-1:].to_pylist(), rows.broken.column("line")[-1:].to_pylist()
    if broken_lines > lines:
        raw = rows.broken.column("raw")[-1].as_py()
        opened = re.search(rf'(?:^|{re.escape(rows.delimiter)})"((?:[^"]|"")*+)\Z', raw)
        is_open = opened is not None and "\n" in opened[1]
    else:
        text = rows.table.column(-1)[-1].as_py() or ""
        behind = ('"' + text.replace('"', '""')).encode()
        tail = read_tail(path, len(behind) + len(b'"\r\n'))
        is_closed = tail.rstrip(b"\r\n").endswith(behind + b'"')  # a text of a line break alone ends like an open one
        is_open = "\n" in text and tail.endswith(behind) and not is_closed
    if is_open:
        line = max(lines + broken_lines)
        raise InputError(f"{path}: a quote in the row on line {line} is open to the end of the file; {_ADVICE}")


class _UncutLineBreaks(io.RawIOBase):
    r"""A file for Arrow, no read of which ends between a "\r" and its "\n".

    Arrow takes a block at a read, and drops a "\n" with which one begins if the one before ended with "\r": as the rest
    of a line break between rows, whether or not it stands within a quoted text.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._ahead = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        r"""At most that many bytes, two or more, of which the last is for a "\n" alone; none at the end of the file."""
        block = self._ahead + self._file.read(size - 1 - len(self._ahead))
        self._ahead = b""
        if block.endswith(b"\r"):
            self._ahead = self._file.read(1)
            if self._ahead == b"\n":
                block, self._ahead = block + self._ahead, b""
        return block


@dataclass(frozen=True)
class _BrokenRow:
    number: int
    reason: str
    text: str


class _LineNumbering:
    """Finds the line on which each row starts, from the line breaks in the rows before it."""

    def __init__(self, source: str, head: CsvHead, file: IO[bytes]) -> None:
        self._source = source
        self._delimiter = head.delimiter
        self._quotes = _QuoteCheck(file, head.delimiter)
        self._next_number = 2  # 1 is the header
        self.next_line = 2 + sum(name.count("\n") for name in head.names)

    def locate(self, table: pa.Table, broken: list[_BrokenRow]) -> RawRows:
        """The rows of a batch with their lines; takes from `broken` those that stand before or among them."""
        n_here = _count_before(self._next_number + table.num_rows, [row.number for row in broken])
        here, broken[:] = broken[:n_here], broken[n_here:]
        n_all = table.num_rows + len(here)
        is_broken = np.zeros(n_all, dtype=bool)
        broken_at = np.array([row.number - self._next_number for row in here], dtype=np.int64)
        is_broken[broken_at] = True
        heights, may_swallow = np.ones(n_all, dtype=np.int64), np.zeros(n_all, dtype=bool)
        for column in table.columns:
            breaks, ends_quoted = _scan(column)
            heights[~is_broken] += breaks
            may_swallow[~is_broken] |= ends_quoted
        heights[broken_at] += np.array([row.text.count("\n") for row in here], dtype=np.int64)
        may_swallow[:-1] |= ~is_broken[:-1] & (heights[:-1] > 1) & is_broken[1:]
        ends = self.next_line + np.cumsum(heights)
        starts = ends - heights
        self._next_number += n_all
        self.next_line = int(ends[-1]) if n_all else self.next_line
        rejected = [(start, row.reason, row.text) for start, row in zip(starts[broken_at].tolist(), here, strict=True)]
        is_sound, row_at = ~is_broken, np.cumsum(~is_broken) - 1
        for at in np.flatnonzero(may_swallow).tolist():
            values = [column[row_at[at]].as_py() or "" for column in table.columns]
            if (raw := self._quotes.find_misplaced(int(starts[at]), int(heights[at]), values)) is not None:
                reason = f"a quote that is open, or not doubled, makes lines {starts[at]} to {ends[at] - 1} one row"
                rejected.append((int(starts[at]), f"{reason}; close or double it", raw))
                is_sound[at] = False
        lines = pa.array(starts[~is_broken], pa.int64())
        if not is_sound[~is_broken].all():
            is_kept = pa.array(is_sound[~is_broken])
            table, lines = table.filter(is_kept), lines.filter(is_kept)
        is_row = _has_content(table)
        if is_row is not None:
            table, lines = table.filter(is_row), lines.filter(is_row)
        broken_lines, reasons, raws = zip(*sorted(rejected), strict=True) if rejected else ((), (), ())
        broken_rows = rejected_rows(self._source, broken_lines, reasons, raws)
        return RawRows(self._source, table, lines, broken_rows, delimiter=self._delimiter)


class _QuoteCheck:
    """Reads rows a second time where a quote may have swallowed lines, as Arrow takes what follows a closing quote.

    An open quote is closed by the one that opens a later text. What that opened then ends with a quote of its own that
    belongs to the value, or is broken off as a row with too few values: only such rows are looked at.
    """

    def __init__(self, file: IO[bytes], delimiter: str) -> None:
        self._file = file
        self._next_line = 1
        mark = re.escape(delimiter)
        field = rf'(?:"(?:[^"]|"")*+"|(?:[^"{mark}\r\n][^{mark}\r\n]*+)?)'
        self._row = re.compile(rf"{field}(?:{mark}{field})*+")
        self._delimiter = delimiter

    def find_misplaced(self, line: int, n_lines: int, values: Sequence[str]) -> str | None:
        """The row as it stands in the file where its quotes are misplaced; rows are asked for in their order."""
        n_before = line - self._next_line
        raw = b"".join(islice(self._file, n_before, n_before + n_lines)).decode("utf-8", "replace").rstrip("\r\n")
        self._next_line = line + n_lines
        is_the_row = raw.replace('"', "") == self._delimiter.join(values).replace('"', "").rstrip("\r\n")
        return raw if is_the_row and self._row.fullmatch(raw) is None else None


def _count_before(number: int, broken: Sequence[int]) -> int:
    """How many of the broken rows stand before the row after the last one, each of them moving it by one."""
    n = 0
    while n < len(broken) and broken[n] <= number + n:
        n += 1
    return n


def _scan(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Line feeds in each text of a string column; whether a text has some and ends with a quote."""
    counts, is_quoted = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.bool_)]
    for chunk in column.chunks:
        offsets, bytes_ = text_bytes(chunk)
        counts.append(np.bincount(rows_of_bytes(offsets, bytes_ == ord("\n")), minlength=len(chunk)))
        is_quoted.append(counts[-1] > 0)
        is_quoted[-1][is_quoted[-1]] = bytes_[offsets[1:][is_quoted[-1]] - 1] == ord('"')
    return np.concatenate(counts), np.concatenate(is_quoted)


def _has_content(table: pa.Table) -> pa.Array | None:
    """Whether any value of each row is there; None where that holds for all."""
    if any(column.null_count == 0 for column in table.columns):
        return None
    has_content = pc.is_valid(table.column(0))
    for column in table.columns[1:]:
        has_content = pc.or_(has_content, pc.is_valid(column))
    return has_content.combine_chunks()
