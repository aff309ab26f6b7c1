"""Metadata values that several assets show: tables, pictures, counts."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import dagster as dg
import pandas as pd

Metadata: TypeAlias = dict[str, Any]
MAX_CELL_CHARS = 160
UNDEFINED = "n/a"
_BREAKS: Final = re.compile(r"[^\S\xa0]+")  # a no-break space keeps what it is for


def show_table(rows: Sequence[Mapping[str, Any]]) -> dg.MetadataValue[Any]:
    """A table that the UI shows in place; the columns are those of the first row."""
    if not rows:
        return dg.MetadataValue.text("none")
    columns = [dg.TableColumn(name=name, type=_type_name(value)) for name, value in rows[0].items()]
    records = [dg.TableRecord({name: _as_cell(value) for name, value in row.items()}) for row in rows]
    return dg.MetadataValue.table(records, dg.TableSchema(columns=columns))


def show_numbers(numbers: Mapping[str, object]) -> dict[str, int | float]:
    """The numbers that are defined, to four digits: a missing one is a gap in the plot over time, no point at 0."""
    return {
        name: int(value) if isinstance(value, int) else float(f"{value:.4g}")
        for name, value in numbers.items()
        if not pd.isna(value)  # type: ignore[call-overload]
    }


def share_of(part: int, whole: int) -> float | None:
    """Part of a whole; None where there is no whole."""
    return part / whole if whole else None


def _as_cell(value: Any) -> str | int | float:  # noqa: ANN401 - of a frame
    if value is None or pd.isna(value):
        return UNDEFINED
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, str):
        line = _BREAKS.sub(" ", value).strip()
        return line if len(line) <= MAX_CELL_CHARS else line[: MAX_CELL_CHARS - 1] + "…"
    return int(value)


def _type_name(value: Any) -> str:  # noqa: ANN401
    return {int: "int", float: "float"}.get(type(value), "string")
