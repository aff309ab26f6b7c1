"""The one IO manager: Parquet, in the declared schemas, whole or not at all."""

from typing import Any, ClassVar

import dagster as dg
import pandas as pd
import pyarrow as pa
from pydantic import PrivateAttr
from upath import UPath

from caliber_pipeline.core.column_lineage import COLUMN_LINEAGE
from caliber_pipeline.core.errors import SchemaError
from caliber_pipeline.core.schemas import SCHEMAS
from caliber_pipeline.renderers.markdown import render_table
from caliber_pipeline.stores.shards import StagedTable
from caliber_pipeline.stores.tables import TableStore

N_PREVIEW_ROWS = 3
MAX_PREVIEW_CHARS = 160  # per cell
FINGERPRINT_CHARS = 12  # tell any two apart; the whole ones are in the Parquet file


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

    def load_input(self, context: dg.InputContext) -> Any:  # noqa: ANN401 - the base class promises no more
        """As the base class, with an empty dict where there are no partitions yet."""
        if context.has_asset_partitions and not context.asset_partition_keys:
            return {}
        return super().load_input(context)

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
        """Row count, columns and their sources, preview, and the fingerprints of what the table was made from."""
        name = context.asset_key.path[-1]
        made_from = {
            str(key): dg.MetadataValue.text(value[:FINGERPRINT_CHARS] if str(key).endswith("_fingerprint") else value)
            for key, value in obj.attrs.items()
            if value != "nan"
        }
        return {
            "dagster/row_count": dg.MetadataValue.int(obj.n_rows if isinstance(obj, StagedTable) else len(obj)),
            "dagster/column_schema": dg.MetadataValue.table_schema(table_schema(SCHEMAS[name])),
            **(column_lineage(name) if name in COLUMN_LINEAGE else {}),
            "preview": dg.MetadataValue.md(render_preview(obj.preview if isinstance(obj, StagedTable) else obj)),
            **made_from,
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


def column_lineage(name: str) -> dict[str, dg.MetadataValue]:
    """Where the columns of a table come from, in Dagster's terms, which Dagster+ draws, and as a table for every UI."""
    origins = COLUMN_LINEAGE[name]
    sources = {
        column: [dg.TableColumnDep(asset_key=table, column_name=source) for table, source in columns]
        for column, columns in origins.items()
    }
    rows = [
        dg.TableRecord({"column": column, "made from": ", ".join(f"{table}.{source}" for table, source in columns)})
        for column, columns in origins.items()
    ]
    schema = dg.TableSchema([dg.TableColumn("column"), dg.TableColumn("made from")])
    return {
        "dagster/column_lineage": dg.MetadataValue.column_lineage(dg.TableColumnLineage(deps_by_column=sources)),
        "column_sources": dg.MetadataValue.table(rows, schema),
    }


def render_preview(frame: pd.DataFrame) -> str:
    """The first rows as a Markdown table, one line per column, so that tables of many columns stay readable."""
    rows = frame.head(N_PREVIEW_ROWS)
    header = ["column", *(f"row {i}" for i in range(1, len(rows) + 1))]
    lines = [[name, *("" if _is_null(value) else value for value in rows[name])] for name in rows.columns]
    return render_table(header, lines, max_chars=MAX_PREVIEW_CHARS)


def _is_null(value: object) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or value != value
