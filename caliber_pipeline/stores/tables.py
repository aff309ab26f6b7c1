"""The stored tables: Parquet per table, or per table and criteria version, with where it came from.

A table is one file while it is small and a folder of shards when it is large; pandas reads both by the same path.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from caliber_pipeline.core.conforming import arrow_from_frame, conform_table, frame_from_arrow
from caliber_pipeline.core.errors import MissingStepError
from caliber_pipeline.core.schemas import LABEL_PLAN
from caliber_pipeline.stores.shards import ATTRS_KEY, ShardWriter, open_dataset, shard_path

_SCAN_ROWS: Final = 65_536


class TableStore:
    """Reads and writes the tables below one folder, each in its declared schema.

    What a table was made from (fingerprints, times) travels in `DataFrame.attrs`, and in the file's metadata.
    """

    def __init__(self, folder: UPath | str) -> None:
        """Use a folder or an object store's prefix, which need not exist yet."""
        self.folder = UPath(folder)

    def path(self, name: str, version: str | None = None) -> UPath:
        """Where a table, or one version of it, lies."""
        return self.folder / f"{name}.parquet" if version is None else self.folder / name / f"{version}.parquet"

    def save(self, frame: pd.DataFrame, path: UPath, name: str) -> None:
        """Write a table of the schema declared under `name`, whole or not at all.

        Raises:
            SchemaError: the frame breaks its schema; what was stored before stays.
        """
        self._write(arrow_from_frame(frame, name), frame.attrs, path)

    def save_plan(self, plan: pd.DataFrame) -> None:
        """Write which records to label next; it replaces the plan before."""
        table = conform_table(pa.Table.from_pandas(plan, preserve_index=False), LABEL_PLAN, "label_plan")
        self._write(table, {}, self.path("label_plan"))

    @staticmethod
    def _write(table: pa.Table, attrs: Mapping[Any, Any], path: UPath) -> None:
        writer = ShardWriter(path, table.schema)
        try:
            writer.add(table)
            writer.finish(attrs).place(path)
        finally:
            writer.discard()

    @staticmethod
    def load_path(path: UPath) -> pd.DataFrame:
        """Read the table at a path whole.

        Raises:
            FileNotFoundError: there is none.
        """
        frame = frame_from_arrow(open_dataset(path).to_table())
        frame.attrs = _load_attrs(path)
        return frame

    def load(self, name: str, version: str | None = None) -> pd.DataFrame | None:
        """A stored table, or None."""
        path = self.path(name, version)
        return self.load_path(path) if path.exists() else None

    def require(self, name: str, version: str | None = None) -> pd.DataFrame:
        """A stored table.

        Raises:
            MissingStepError: it is not stored.
        """
        return self.load_path(self._existing(name, version))

    def load_attrs(self, name: str, version: str | None = None) -> dict[str, str] | None:
        """What a stored table was made from, without reading its rows; None where it is not stored."""
        path = self.path(name, version)
        return _load_attrs(path) if path.exists() else None

    def count(self, name: str, version: str | None = None) -> int:
        """How many rows a table has, by its files' footers; 0 where it is not stored."""
        path = self.path(name, version)
        return int(open_dataset(path).count_rows()) if path.exists() else 0

    def stored_schema(self, name: str, version: str | None = None) -> pa.Schema:
        """The columns of a table as they are stored.

        Raises:
            MissingStepError: it is not stored.
        """
        return open_dataset(self._existing(name, version)).schema

    def scan(
        self,
        name: str,
        version: str | None = None,
        *,
        columns: Sequence[str] | None = None,
        where: pc.Expression | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a table in batches, so that memory does not grow with it.

        Args:
            name: The table.
            version: One version of it.
            columns: Those to read; all where left out.
            where: Which rows; all where left out.

        Raises:
            MissingStepError: it is not stored.
        """
        dataset = open_dataset(self._existing(name, version))
        names = None if columns is None else list(columns)
        # a scan of more at once reads ahead: its memory would grow with the number of files, and with the texts' length
        for file in dataset.get_fragments():
            for group in file.split_by_row_group(where, dataset.schema):
                yield from group.to_batches(
                    schema=dataset.schema, columns=names, filter=where, batch_size=_SCAN_ROWS, batch_readahead=1
                )

    def select(
        self,
        name: str,
        version: str | None = None,
        *,
        columns: Sequence[str] | None = None,
        where: pc.Expression | None = None,
    ) -> pd.DataFrame:
        """The rows and columns of a table that fit a condition, the others never in memory; arguments as of `scan`."""
        dataset = open_dataset(self._existing(name, version))
        schema = dataset.schema if columns is None else pa.schema([dataset.schema.field(column) for column in columns])
        batches = self.scan(name, version, columns=columns, where=where)
        frame = frame_from_arrow(pa.Table.from_batches(batches, schema=schema.remove_metadata()))
        frame.attrs = _load_attrs(self.path(name, version))
        return frame

    def _existing(self, name: str, version: str | None) -> UPath:
        path = self.path(name, version)
        if not path.exists():
            raise MissingStepError(f"{path}: not there yet; materialize '{name}' first")
        return path

    def versions(self, name: str) -> list[str]:
        """The versions of a table that are stored, sorted."""
        folder = self.folder / name
        return sorted(path.stem for path in folder.glob("*.parquet")) if folder.exists() else []

    def load_versions(self, name: str) -> dict[str, pd.DataFrame]:
        """Every stored version of a table."""
        return {version: self.load_path(self.path(name, version)) for version in self.versions(name)}


def _load_attrs(path: UPath) -> dict[Any, str]:
    first = path / shard_path(Path(), 0).name if path.is_dir() else path
    with first.open("rb") as file:
        metadata = pq.read_metadata(file).metadata
    return dict(json.loads((metadata or {}).get(ATTRS_KEY, b"{}")))
