"""The stored tables: one Parquet file per table, or per table and criteria version, with where it came from."""

import json
import uuid
from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from upath import UPath

from caliber_pipeline.core.errors import MissingStepError
from caliber_pipeline.core.schemas import arrow_from_frame, frame_from_arrow

_ATTRS_KEY = b"PANDAS_ATTRS"  # where pandas itself keeps `DataFrame.attrs`, so that a plain read_parquet shows them


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
        table = arrow_from_frame(frame, name)
        table = table.replace_schema_metadata({_ATTRS_KEY: json.dumps(frame.attrs).encode()})
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.protocol not in {"", "file", "local"}:  # an object store shows an object only when it is complete
            with path.open("wb") as file:
                pq.write_table(table, file, compression="zstd")
            return
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with temporary.open("wb") as file:
                pq.write_table(table, file, compression="zstd")
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)

    @staticmethod
    def load_path(path: UPath) -> pd.DataFrame:
        """Read the table at a path.

        Raises:
            FileNotFoundError: there is none.
        """
        with path.open("rb") as file:
            table = pq.read_table(file)
        frame = frame_from_arrow(table)
        frame.attrs = _attrs(table.schema.metadata)
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
        table = self.load(name, version)
        if table is None:
            raise MissingStepError(f"{self.path(name, version)}: not there yet; materialize '{name}' first")
        return table

    def load_attrs(self, name: str, version: str | None = None) -> dict[str, str] | None:
        """What a stored table was made from, without reading its rows; None where it is not stored."""
        path = self.path(name, version)
        if not path.exists():
            return None
        with path.open("rb") as file:
            return _attrs(pq.read_schema(file).metadata)

    def count(self, name: str, version: str | None = None) -> int:
        """How many rows a table has, by the file's footer; 0 where it is not stored."""
        path = self.path(name, version)
        if not path.exists():
            return 0
        with path.open("rb") as file:
            return int(pq.read_metadata(file).num_rows)

    def versions(self, name: str) -> list[str]:
        """The versions of a table that are stored, sorted."""
        folder = self.folder / name
        return sorted(path.stem for path in folder.glob("*.parquet")) if folder.exists() else []

    def load_versions(self, name: str) -> dict[str, pd.DataFrame]:
        """Every stored version of a table."""
        return {version: self.load_path(self.path(name, version)) for version in self.versions(name)}


def _attrs(metadata: Mapping[bytes, bytes] | None) -> dict[Any, str]:
    return dict(json.loads((metadata or {}).get(_ATTRS_KEY, b"{}")))
