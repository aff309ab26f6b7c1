"""The one IO manager: Parquet, in the declared schemas, whole or not at all."""

from typing import Any, ClassVar

import dagster as dg
import pandas as pd
import pyarrow as pa
from pydantic import PrivateAttr
from upath import UPath

from caliber_pipeline.core.errors import SchemaError
from caliber_pipeline.core.schemas import SCHEMAS
from caliber_pipeline.stores.shards import StagedTable
from caliber_pipeline.stores.tables import TableStore

N_PREVIEW_ROWS = 5
MAX_PREVIEW_CHARS = 120  # per cell


class ParquetIOManager(dg.ConfigurableIOManager, dg.UPathIOManager):
    """Stores each asset at OUTPUT/<asset>.parquet, or OUTPUT/<asset>/<criteria version>.parquet."""

    extension: ClassVar[str | None] = ".parquet"  # type: ignore[misc] # a field on the Pydantic class otherwise
    output_dir: str

    _base_path: UPath = PrivateAttr()

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Resolve the folder when a run starts, not at import."""
        self._base_path = UPath(self.output_dir)

    def dump_to_path(self, context: dg.OutputContext, obj: pd.DataFrame | StagedTable, path: UPath) -> None:
        """Write a table in the schema of its asset, or put one in its place that was written before.

        Raises:
            dg.Failure: the table breaks its schema, which no retry mends.
        """
        if isinstance(obj, StagedTable):
            obj.place(path)
            return
        try:
            TableStore(self._base_path).save(obj, path, context.asset_key.path[-1])
        except SchemaError as error:
            raise dg.Failure(str(error), allow_retries=False) from error

    def load_from_path(self, context: dg.InputContext, path: UPath) -> pd.DataFrame:
        """Read a table."""
        return TableStore.load_path(path)

    def load_partitions(self, context: dg.InputContext) -> Any:  # noqa: ANN401 - the base class promises no more
        """The one table of a partition of the same kind, a dict by partition for everything else.

        The base class gives the bare object for one partition too where all were asked for, so that what a caller gets
        would depend on how many there are.
        """
        loaded = super().load_partitions(context)
        if isinstance(loaded, dict) or context.has_partition_key:
            return loaded
        keys = list(context.asset_partition_keys)
        return {} if loaded is None else {keys[0]: loaded}

    def get_metadata(self, context: dg.OutputContext, obj: pd.DataFrame | StagedTable) -> dict[str, dg.MetadataValue]:
        """Row count, columns, preview, and the fingerprints of what the table was made from."""
        name = context.asset_key.path[-1]
        fingerprints = {str(key): dg.MetadataValue.text(value) for key, value in obj.attrs.items()}
        return {
            "dagster/row_count": dg.MetadataValue.int(obj.n_rows if isinstance(obj, StagedTable) else len(obj)),
            "dagster/column_schema": dg.MetadataValue.table_schema(table_schema(SCHEMAS[name])),
            "preview": dg.MetadataValue.md(render_preview(obj.preview if isinstance(obj, StagedTable) else obj)),
            **fingerprints,
        }


def table_schema(schema: pa.Schema) -> dg.TableSchema:
    """A declared schema in Dagster's terms, descriptions included."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=field.name,
                type=str(field.type),
                description=(field.metadata or {}).get(b"description", b"").decode(),
                constraints=dg.TableColumnConstraints(nullable=field.nullable),
            )
            for field in schema
        ]
    )


def render_preview(frame: pd.DataFrame) -> str:
    """The first rows as a Markdown table; text from the data can neither break the table nor run as HTML."""
    rows = frame.head(N_PREVIEW_ROWS)
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + " --- |" * len(frame.columns)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows.itertuples(index=False)]
    return "\n".join(lines)


def _cell(value: object) -> str:
    text = "" if value is None or value is pd.NA else " ".join(str(value).split())
    text = text if len(text) <= MAX_PREVIEW_CHARS else text[: MAX_PREVIEW_CHARS - 1] + "…"
    for character, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("`", "'"), ("[", "\\[")):
        text = text.replace(character, escaped)
    return text
