"""Rows that a caller wants scored: the records that they are, as a judge's task takes them, and those that are none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from caliber_pipeline.api.fields import Item, read_field
from caliber_pipeline.api.records import text_rows
from caliber_pipeline.api.upload import RejectedRow, UploadHandler, our_names_first
from caliber_pipeline.core.column_names import RECORD_ALIASES

if TYPE_CHECKING:
    import pandas as pd

NO_RECORD: Final = "no_record"
"""The status of a row that is no record, and was not judged: beside `verdicts.STATUSES`, which are of records."""

_TEXTS: Final = ("record_id", "query", "output", "reference", "llm_reasoning")


@dataclass(frozen=True)
class GivenRecords:
    """What became of the rows.

    Attributes:
        table: The records, with the columns of a judge's task.
        lines: Per record the number of its row, from 1; None where every row is a record.
        rejected: The rows that are no records.
        rejected_ids: Their ids, None where they have none.
    """

    table: pd.DataFrame
    lines: list[int] | None = None
    rejected: tuple[RejectedRow, ...] = ()
    rejected_ids: tuple[str | None, ...] = ()

    def complete(self, scored: pd.DataFrame) -> pd.DataFrame:
        """The verdicts on the records, and a row with the reason in the place of each row that is none."""
        import numpy as np
        import pandas as pd

        if not self.rejected or self.lines is None:
            return scored
        columns: dict[str, Any] = {name: [None] * len(self.rejected) for name in scored.columns}
        columns |= {
            "record_id": list(self.rejected_ids),
            "status": NO_RECORD,
            "is_abstained": True,
            "failure_reason": [row.reason for row in self.rejected],
        }
        unscored = pd.DataFrame(columns).astype(scored.dtypes.to_dict())
        lines = [*self.lines, *(row.line or 0 for row in self.rejected)]
        return pd.concat([scored, unscored], ignore_index=True).iloc[np.argsort(lines)].reset_index(drop=True)


def parse_given(
    records: pd.DataFrame | Iterable[Item], column_mapping: Mapping[str, str] | None = None
) -> GivenRecords:
    """Parse rows as an upload does; a table of records that ingest or an upload made is taken as it is.

    Args:
        records: A frame, or dicts, or objects with attributes, under any of the usual names.
        column_mapping: Our column names to theirs, where the usual names do not fit.

    Raises:
        InputError: there is no query or no output, or an item is no record at all.
    """
    import pandas as pd

    if isinstance(records, pd.DataFrame):
        if not column_mapping and _is_parsed(records):
            return GivenRecords(_as_task(records))
        names = [str(name) for name in records.columns]
        if not len(records):
            return GivenRecords(_no_records(names, column_mapping))
        upload = UploadHandler().from_dataframe(records, column_mapping)
        id_column = _find_columns(names, column_mapping).get("record_id")
        ids = [None] * len(records) if id_column is None else records[id_column].tolist()
    else:
        rows = [_as_row(item) for item in records]
        if not rows:
            return GivenRecords(_no_records(["query", "output"], None))
        upload = UploadHandler().from_records(rows, column_mapping)
        names = list(dict.fromkeys(str(name) for row in rows for name in row))
        id_column = _find_columns(names, column_mapping).get("record_id")
        ids = [row.get(id_column) for row in rows]
    lines = upload.table["line"].tolist()
    rejected_ids = _texts_of([ids[(row.line or 0) - 1] for row in upload.rejected])
    return GivenRecords(_as_task(upload.table), lines, upload.rejected, rejected_ids)


def _as_row(item: Item) -> Item:
    """The item as a dict, where it is an object with what a record needs; else as it is, for the upload to judge."""
    needed = (*RECORD_ALIASES["query"], *RECORD_ALIASES["output"])
    if isinstance(item, Mapping) or not any(hasattr(item, name) for name in needed):
        return item
    return {name: read_field(item, name) for name in RECORD_ALIASES}


def _find_columns(names: list[str], column_mapping: Mapping[str, str] | None, *required: str) -> dict[str, str]:
    from caliber_pipeline.core.columns import resolve_columns

    mapping = our_names_first(column_mapping, names)
    return resolve_columns(names, RECORD_ALIASES, required, mapping, source="records")


def _no_records(names: list[str], column_mapping: Mapping[str, str] | None) -> pd.DataFrame:
    """A table without records, of columns that could hold some: nothing to score is no fault."""
    from caliber_pipeline.core.conforming import empty_frame

    _find_columns(names, column_mapping, "query", "output")
    return _as_task(empty_frame("records"))


def _texts_of(ids: list[Any]) -> tuple[str | None, ...]:
    """Ids as an upload reads them; None for blank ones."""
    texts, _ = text_rows({"record_id": ids})
    return tuple((text or "").strip() or None for text in texts.column("record_id").to_pylist())


def _is_parsed(frame: pd.DataFrame) -> bool:
    """Whether these are records as the parser makes them: parsing them again would cost more than the check."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    from caliber_pipeline.core.columns import is_blank

    types = {**dict.fromkeys(_TEXTS, pd.ArrowDtype(pa.string())), "llm_score": pd.ArrowDtype(pa.int8())}
    if not frame.columns.is_unique or types.items() - frame.dtypes.to_dict().items():
        return False
    needed = (pa.array(frame[name], from_pandas=True) for name in ("record_id", "query", "output"))
    return bool(frame["record_id"].is_unique) and not any(pc.any(is_blank(column)).as_py() for column in needed)


def _as_task(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that a judge's task takes."""
    import pandas as pd

    columns: dict[str, pd.Series] = {name: table[name].astype("string[pyarrow]") for name in _TEXTS}
    columns["llm_score"] = table["llm_score"].astype("int8[pyarrow]")
    return pd.DataFrame(columns).reset_index(drop=True)
