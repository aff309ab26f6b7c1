"""Tables to JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def frame_to_json(frame: pd.DataFrame, schema: pa.Schema) -> dict[str, list[Any]]:
    """The columns of a schema as lists that JSON can hold; the frame may have more columns."""
    import pyarrow as pa

    arrays = (pa.array(frame[field.name], type=field.type, from_pandas=True) for field in schema)
    return {name: plain_json(array.to_pylist()) for name, array in zip(schema.names, arrays, strict=True)}


def frame_from_json(columns: Mapping[str, list[Any]], schema: pa.Schema) -> pd.DataFrame:
    """The frame that `frame_to_json` was made from."""
    import pyarrow as pa

    from caliber_pipeline.core.conforming import frame_from_arrow

    arrays = [pa.array([_typed(v, field.type) for v in columns[field.name]], field.type) for field in schema]
    return frame_from_arrow(pa.Table.from_arrays(arrays, schema=schema))


def table_to_json(frame: pd.DataFrame) -> dict[str, Any]:
    """A frame of plain columns (texts, numbers, truth values) with the types of its columns."""
    import pyarrow as pa

    arrays = {str(name): pa.array(frame[name], from_pandas=True) for name in frame.columns}
    return {
        "types": {name: str(array.type) for name, array in arrays.items()},
        "columns": {name: array.to_pylist() for name, array in arrays.items()},
    }


def table_from_json(data: Mapping[str, Any]) -> pd.DataFrame:
    """The frame that `table_to_json` was made from."""
    import pyarrow as pa

    schema = pa.schema([(name, pa.type_for_alias(type_)) for name, type_ in data["types"].items()])
    return frame_from_json(data["columns"], schema)


def plain_json(value: Any) -> Any:  # noqa: ANN401 - any part of JSON
    """The value as JSON gives it back: lists in place of tuples, text in place of times."""
    if isinstance(value, tuple | list):
        return [plain_json(item) for item in value]
    if isinstance(value, dict):
        return {key: plain_json(item) for key, item in value.items()}
    return value.isoformat() if isinstance(value, datetime) else value


def _typed(value: Any, type_: pa.DataType) -> Any:  # noqa: ANN401 - a cell is of any type
    import pyarrow as pa

    if value is None:
        return None
    if pa.types.is_timestamp(type_):
        return datetime.fromisoformat(value)
    if pa.types.is_map(type_):
        return [(key, item) for key, item in value]
    return value
