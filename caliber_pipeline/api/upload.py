"""Takes records from files, frames and lists; every row becomes a record or a rejection with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from caliber_pipeline.api.records import Annotation, UploadedRecord, text_rows
from caliber_pipeline.core.arguments import MAPPING, PATH, accepts
from caliber_pipeline.core.errors import InputError, MissingColumnsError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from caliber_pipeline.stores.raw_rows import RawRows

MAX_WARNINGS: Final = 100  # what a person may still read; `rejected` holds them all


@dataclass(frozen=True)
class RejectedRow:
    """A row that became no record.

    Attributes:
        line: Where it stands: the line of a file, the number of the row (from 1) elsewhere.
        reason: Why it was rejected, with the value at fault.
        raw: The row as it was read.
    """

    line: int | None
    reason: str
    raw: str | None


@dataclass(frozen=True)
class UploadResult:
    """What became of an upload.

    Attributes:
        table: The records, a frame of the `records` schema.
        rejected: The rows that became no record, in their order.
        source: What was read.
        left_out: Columns of bytes that are no text, which were not read.
    """

    table: pd.DataFrame
    rejected: tuple[RejectedRow, ...]
    source: str
    left_out: tuple[str, ...] = ()

    @cached_property
    def records(self) -> list[UploadedRecord]:
        """The records, one model each."""
        from caliber_pipeline.api.records import records_from_table

        return records_from_table(self.table)

    @cached_property
    def annotations(self) -> list[Annotation]:
        """The labels and the single annotators' verdicts that came with the records."""
        from caliber_pipeline.api.records import annotations_from_table
        from caliber_pipeline.core.annotations import annotations_from_records

        return annotations_from_table(annotations_from_records(self.table))

    @property
    def total_count(self) -> int:
        """How many records there are."""
        return len(self.table)

    @property
    def has_llm_scores(self) -> bool:
        """Whether a record brings a recorded verdict."""
        return bool(self.table["llm_score"].notna().any())

    @property
    def validation_warnings(self) -> list[str]:
        """Columns that were left out, and why rows were rejected: one line each, of rows the first hundred."""
        columns = [f"{self.source}: column '{name}' left out: its bytes are no UTF-8 text" for name in self.left_out]
        lines = columns + [_describe(self.source, row) for row in self.rejected[:MAX_WARNINGS]]
        n_more = len(self.rejected) - MAX_WARNINGS
        return [*lines, f"{self.source}: {n_more} more rows rejected"] if n_more > 0 else lines


class UploadHandler:
    """Reads records under any of the column names that people use; unknown columns are kept as metadata."""

    def __init__(self, strict_validation: bool = False) -> None:
        """Set how faults are treated.

        Args:
            strict_validation: Raise on the first row that cannot be used, rather than reject it and go on.
        """
        self._is_strict = strict_validation

    @accepts(path=PATH, column_mapping=MAPPING.or_none)
    def from_csv(self, path: str | Path, column_mapping: Mapping[str, str] | None = None) -> UploadResult:
        """Read a CSV file with a header.

        Args:
            path: The file.
            column_mapping: Our column names to the file's (or the reverse), where the usual names do not fit.

        Raises:
            InputError: the file cannot be used; in strict mode also where a row cannot.
        """
        return self._from_file(Path(path), column_mapping, (".csv", ".tsv"))

    @accepts(path=PATH, column_mapping=MAPPING.or_none)
    def from_jsonl(self, path: str | Path, column_mapping: Mapping[str, str] | None = None) -> UploadResult:
        """Read a file with one JSON object per line; arguments and errors as `from_csv`."""
        return self._from_file(Path(path), column_mapping, (".jsonl", ".ndjson"))

    @accepts(path=PATH, column_mapping=MAPPING.or_none)
    def from_parquet(self, path: str | Path, column_mapping: Mapping[str, str] | None = None) -> UploadResult:
        """Read a Parquet file; arguments and errors as `from_csv`."""
        return self._from_file(Path(path), column_mapping, (".parquet",))

    @accepts(column_mapping=MAPPING.or_none)
    def from_dataframe(self, df: pd.DataFrame, column_mapping: Mapping[str, str] | None = None) -> UploadResult:
        """Take a frame's rows; arguments and errors as `from_csv`."""
        if not hasattr(df, "columns"):
            raise InputError(f"dataframe: got a {type(df).__name__}; give a pandas DataFrame")
        repeated = sorted({str(name) for name in df.columns[df.columns.duplicated()]})
        if repeated:
            raise InputError(f"{len(repeated)} column names repeat, e.g. {repeated[:3]}; rename the repeats")
        columns = {_name(name): df[name].tolist() for name in df.columns}
        return self._from_columns(columns, column_mapping, "dataframe")

    @accepts(column_mapping=MAPPING.or_none)
    def from_records(
        self, records: Iterable[Mapping[str, Any]], column_mapping: Mapping[str, str] | None = None
    ) -> UploadResult:
        """Take dicts, which need not have the same keys; arguments and errors as `from_csv`."""
        rows = list(records) if isinstance(records, Iterable) else [records]
        others = {type(row).__name__ for row in rows if not isinstance(row, Mapping)}
        if others:
            raise InputError(f"records: got {', '.join(sorted(others))} among the records; give a list of dicts")
        names = list(dict.fromkeys(name for row in rows for name in row))
        columns = {_name(name): [row.get(name) for row in rows] for name in names}
        return self._from_columns(columns, column_mapping, "records")

    def _from_file(self, path: Path, mapping: Mapping[str, str] | None, suffixes: Sequence[str]) -> UploadResult:
        from caliber_pipeline.stores.input_files import load_rows

        if not path.name.lower().removesuffix(".gz").endswith(tuple(suffixes)):
            raise InputError(f"{path}: expected a file that ends in {' or '.join(suffixes)}")
        return self._parse(load_rows(path), mapping)

    def _from_columns(
        self, columns: Mapping[str, Sequence[Any]], mapping: Mapping[str, str] | None, source: str
    ) -> UploadResult:
        import pyarrow as pa
        import pyarrow.compute as pc

        from caliber_pipeline.core.schemas import REJECTED_ROWS
        from caliber_pipeline.stores.raw_rows import RawRows, rejected_rows

        table, faults = text_rows(columns)
        if not table.num_rows:
            raise InputError(f"{source}: there are no rows; give at least one")
        rows = RawRows(source, table, pa.array(range(1, table.num_rows + 1), pa.int64()), REJECTED_ROWS.empty_table())
        if faults:
            is_faulty = pa.array([i in faults for i in range(table.num_rows)])
            is_sound = pc.invert(is_faulty)
            places = sorted(faults)
            reasons = [faults[i] for i in places]
            broken = rejected_rows(source, [i + 1 for i in places], reasons, rows.render_raw(is_faulty))
            rows = RawRows(source, table.filter(is_sound), rows.lines.filter(is_sound), broken)
        return self._parse(rows, mapping)

    def _parse(self, rows: RawRows, mapping: Mapping[str, str] | None) -> UploadResult:
        import pyarrow as pa

        from caliber_pipeline.core.records import parse_records

        names = rows.table.column_names
        turned = our_names_first(mapping, names)
        try:
            parsed = parse_records(rows.table, rows.lines, source=rows.source, mapping=turned)
        except MissingColumnsError as error:
            entries = ", ".join(f"'{name}': 'COLUMN'" for name in error.missing)
            raise InputError(error.advise(f"column_mapping={{{entries}}}")) from None
        rejected = _rejected(rows, parsed.is_rejected, parsed.reasons.to_pylist())
        if rejected and self._is_strict:
            raise InputError(f"{_describe(rows.source, rejected[0])}; mend or drop the row")
        # columns of bytes that are no text come as binary columns without values
        left_out = tuple(name for name in names if pa.types.is_binary(rows.table.schema.field(name).type))
        return UploadResult(parsed.table, tuple(rejected), rows.source, left_out)


def our_names_first(mapping: Mapping[str, str] | None, names: Sequence[str]) -> dict[str, str]:
    """A column mapping as our names to the file's, whichever way round it was given.

    Raises:
        InputError: a pair names no column of the file on either side, or none of ours.
    """
    from caliber_pipeline.core.column_names import RECORD_ALIASES

    ours = {alias: name for name, aliases in RECORD_ALIASES.items() for alias in (*aliases, name)}
    turned = {}
    for left, right in (mapping or {}).items():
        if left in ours and right in names:
            turned[ours[left]] = right
        elif right in ours and left in names:
            turned[ours[right]] = left
        else:
            raise InputError(
                f"column_mapping {{{left!r}: {right!r}}} maps none of {', '.join(RECORD_ALIASES)} "
                f"to one of the columns {', '.join(names)}"
            )
    return turned


def _name(name: object) -> str:
    """A column's name, with half of a surrogate pair escaped."""
    return str(name).encode("utf-8", "backslashreplace").decode()


def _rejected(rows: RawRows, is_rejected: pa.Array, reasons: Sequence[str]) -> list[RejectedRow]:
    raws = rows.render_raw(is_rejected)
    lines = rows.lines.filter(is_rejected).to_pylist()
    found = [RejectedRow(*row) for row in zip(lines, reasons, raws, strict=True)]
    found += [RejectedRow(row["line"], row["reason"], row["raw"]) for row in rows.broken.to_pylist()]
    return sorted(found, key=lambda row: row.line or 0)


def _describe(source: str, row: RejectedRow) -> str:
    return f"{source}: line {row.line}: {row.reason}"
