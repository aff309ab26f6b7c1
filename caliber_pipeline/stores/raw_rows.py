"""Rows of an input file as text, each with its line, and those that could not be read."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from caliber_pipeline.core.schemas import REJECTED_ROWS


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
        delimiter: What stands between the values of such a line.
    """

    source: str
    table: pa.Table
    lines: pa.Array
    broken: pa.Table
    raws: pa.ChunkedArray | None = None
    delimiter: str = ","

    @property
    def n_rows(self) -> int:
        """How many rows there are, the broken ones included."""
        return int(self.table.num_rows + self.broken.num_rows)

    def render_raw(self, is_chosen: pa.Array) -> list[str]:
        """The text of the chosen rows, to show a rejected one."""
        if self.raws is None:
            return _csv_lines(self.table.filter(is_chosen), self.delimiter)
        texts: list[str] = pc.utf8_rtrim(self.raws.filter(is_chosen), "\r\n").to_pylist()
        return texts


def rejected_rows(source: str, lines: Sequence[int | None], reasons: Sequence[str], raws: Sequence[str]) -> pa.Table:
    """Rows in the schema of rejected rows."""
    return pa.Table.from_pydict(
        {"source": [source] * len(reasons), "line": list(lines), "reason": list(reasons), "raw": list(raws)},
        schema=REJECTED_ROWS,
    )


def _csv_lines(table: pa.Table, delimiter: str) -> list[str]:
    """Each row as a CSV line."""
    fields = []
    for column in table.columns:
        text = pc.fill_null(column.cast(pa.string()), "")
        needs_quotes = pc.match_substring_regex(text, f'[{delimiter}"\r\n]')
        doubled = pc.replace_substring(text, '"', '""')
        fields.append(pc.if_else(needs_quotes, pc.binary_join_element_wise('"', doubled, '"', ""), text))
    raws: list[str] = pc.binary_join_element_wise(*fields, delimiter).to_pylist() if fields else []
    return raws
