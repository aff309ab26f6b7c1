"""Tables held to their declared schemas, and turned from pandas to Arrow and back."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from caliber_pipeline.core.errors import SchemaError
from caliber_pipeline.core.schemas import SCHEMAS


def conform_table(table: pa.Table, schema: pa.Schema, name: str) -> pa.Table:
    """Return the table with exactly the schema's columns, order and types.

    Raises:
        SchemaError: a column is missing or unknown, a value does not fit its type, or a required one is null. The
            message names every fault at once.
    """
    own, declared = table.column_names, schema.names
    faults = [f"column '{c}' is missing" for c in declared if c not in own]
    faults += [f"column '{c}' is not in the schema" for c in own if c not in declared]
    columns = []
    for field in schema:
        if field.name not in own:
            continue
        column = table.column(field.name)
        try:
            column = column.cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            faults.append(f"column '{field.name}' is not {field.type}: {error}")
        if not field.nullable and column.null_count:
            faults.append(f"column '{field.name}' has {column.null_count} nulls and allows none")
        columns.append(column)
    if faults:
        raise SchemaError(f"table '{name}' breaks its schema: {'; '.join(faults)}")
    return pa.Table.from_arrays(columns, schema=schema)


def find_schema_faults(stored: pa.Schema, declared: pa.Schema) -> list[str]:
    """How a stored table's columns differ from the declared ones: missing, unknown, of another type, nullable."""
    faults = [f"column '{c}' is missing" for c in declared.names if c not in stored.names]
    faults += [f"column '{c}' is not declared" for c in stored.names if c not in declared.names]
    for field in declared:
        if field.name not in stored.names:
            continue
        own = stored.field(field.name)
        if _type_name(own.type) != _type_name(field.type):
            faults.append(f"column '{field.name}' is {own.type}, not {field.type}")
        if own.nullable and not field.nullable:
            faults.append(f"column '{field.name}' allows nulls")
    return faults


def _type_name(type_: pa.DataType) -> str:
    """The type's name without those of what lists and maps hold, for which Parquet has names of its own."""
    return re.sub(r" \('\w+'\)", "", str(type_).replace("<element:", "<item:"))


def one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column whose chunks are put together; an array stays as it is."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def frame_from_arrow(table: pa.Table) -> pd.DataFrame:
    """The table as pandas over Arrow, the form that every stage takes and returns."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def arrow_from_frame(frame: pd.DataFrame, name: str) -> pa.Table:
    """The frame as an Arrow table of the schema declared under `name`.

    Raises:
        SchemaError: as `conform_table`.
    """
    schema = SCHEMAS[name]
    arrays = {c: pa.array(frame[c], from_pandas=True) for c in map(str, frame.columns)}
    return conform_table(pa.table(arrays), schema, name)


def conform_frame(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The frame with the types of the schema declared under `name`.

    Raises:
        SchemaError: as `conform_table`.
    """
    return frame_from_arrow(arrow_from_frame(frame, name))


def plain_cell(value: Any) -> Any:  # noqa: ANN401 - a cell is of any type
    """The value of a cell as Python has it, None for null."""
    if value is None or isinstance(value, str | list | np.ndarray):
        return value
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def empty_frame(name: str) -> pd.DataFrame:
    """A frame of the schema declared under `name`, without rows."""
    return frame_from_arrow(SCHEMAS[name].empty_table())
